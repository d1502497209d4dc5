//! TLS: handshakes of our own, so that what fails says why.
//!
//! The library's connections fail without a word. Here a server's certificate is checked before its first request, by an
//! authority or by its fingerprint, and the connection is handed to the library as the inbound ones are: what comes back on
//! it passes the gate. Source: RFC 3261 §26.3.2, RFC 5922 (names), RFC 5626 §3.5.1 (keep-alive).

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use rsipstack::platform::CancellationToken;
use rsipstack::sip::{Host, Transport, Uri};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, ServerConfig, SignatureScheme,
};
use sha2::{Digest as _, Sha256};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::config::{TlsListener, TlsTrust};
use crate::core::{Core, lock};
use crate::error::SipError;
use crate::locate::Server;
use crate::tcp;

/// Longest a connection and its handshake may take.
pub(crate) const HANDSHAKE: Duration = Duration::from_secs(8);
/// Where Debian keeps the authorities everybody trusts.
const SYSTEM_AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Our own listener's side of the handshake.
///
/// # Errors
/// [`SipError::Tls`] with what is wrong with the files.
pub(crate) fn acceptor(listener: &TlsListener) -> Result<TlsAcceptor, SipError> {
    let chain = certificates(&listener.cert)?;
    let key = PrivateKeyDer::from_pem_file(&listener.key)
        .map_err(|error| unusable(&listener.key, &format!("holds no private key ({error})")))?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(&listener.cert, &error.to_string()))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|error| unusable(&listener.cert, &format!("does not go with its key ({error})")))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, SipError> {
    let read = CertificateDer::pem_file_iter(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    match read {
        Ok(found) if !found.is_empty() => Ok(found),
        Ok(_) => Err(unusable(path, "holds no certificate in PEM form")),
        Err(error) => Err(unusable(path, &error.to_string())),
    }
}

fn unusable(path: &Path, what: &str) -> SipError {
    SipError::Tls {
        peer: path.display().to_string(),
        hint: what.to_string(),
    }
}

/// How a server's certificate is judged.
///
/// # Errors
/// [`SipError::Tls`] with what is wrong with the authority's file or the fingerprint.
fn client(trust: &TlsTrust) -> Result<(TlsConnector, Arc<Judge>), SipError> {
    let how = match (&trust.fingerprint, trust.verify) {
        (Some(fingerprint), _) => How::Fingerprint(parse_fingerprint(fingerprint)?),
        (None, false) => How::Anybody,
        (None, true) => How::Authorities(authorities(trust.ca.as_deref())?),
    };
    let judge = Arc::new(Judge {
        how,
        provider: provider(),
        seen: Mutex::default(),
    });
    let config = ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| unusable(Path::new("TLS"), &error.to_string()))?
        .dangerous()
        .with_custom_certificate_verifier(judge.clone())
        .with_no_client_auth();
    Ok((TlsConnector::from(Arc::new(config)), judge))
}

fn authorities(ca: Option<&Path>) -> Result<Arc<WebPkiServerVerifier>, SipError> {
    let path = ca.unwrap_or(Path::new(SYSTEM_AUTHORITIES));
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(certificates(path)?);
    WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider())
        .build()
        .map_err(|error| unusable(path, &error.to_string()))
}

/// `AB:CD:…`, as `openssl x509 -fingerprint -sha256` prints it, with or without colons.
///
/// # Errors
/// [`SipError::BadAddress`] with what would be accepted.
pub(crate) fn parse_fingerprint(text: &str) -> Result<[u8; 32], SipError> {
    let bad = || SipError::BadAddress {
        text: text.to_string(),
        expected: "a SHA-256 fingerprint: 64 hexadecimal digits, as `openssl x509 -noout -fingerprint -sha256` prints it",
    };
    let digits: Vec<u8> = text
        .rsplit('=')
        .next()
        .unwrap_or(text)
        .bytes()
        .filter(|byte| !matches!(byte, b':' | b' '))
        .collect();
    let mut fingerprint = [0; 32];
    if digits.len() != 64 {
        return Err(bad());
    }
    for (byte, pair) in fingerprint.iter_mut().zip(digits.chunks(2)) {
        let pair = std::str::from_utf8(pair).map_err(|_| bad())?;
        *byte = u8::from_str_radix(pair, 16).map_err(|_| bad())?;
    }
    Ok(fingerprint)
}

fn shown(fingerprint: &[u8]) -> String {
    let pairs: Vec<String> = fingerprint.iter().map(|byte| format!("{byte:02X}")).collect();
    pairs.join(":")
}

#[derive(Debug)]
enum How {
    Authorities(Arc<WebPkiServerVerifier>),
    Fingerprint([u8; 32]),
    Anybody,
}

/// Judges a certificate and remembers its fingerprint for the message that tells what to do.
#[derive(Debug)]
struct Judge {
    how: How,
    provider: Arc<CryptoProvider>,
    seen: Mutex<Option<[u8; 32]>>,
}

impl ServerCertVerifier for Judge {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let fingerprint: [u8; 32] = Sha256::digest(end_entity).into();
        *lock(&self.seen) = Some(fingerprint);
        match &self.how {
            How::Authorities(verifier) => {
                verifier.verify_server_cert(end_entity, intermediates, server_name, ocsp, now)
            }
            How::Fingerprint(wanted) if *wanted == fingerprint => Ok(ServerCertVerified::assertion()),
            How::Fingerprint(_) => Err(CertificateError::ApplicationVerificationFailure.into()),
            How::Anybody => Ok(ServerCertVerified::assertion()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(
            message,
            cert,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider
            .signature_verification_algorithms
            .supported_schemes()
    }
}

/// Our connections to TLS servers, by address.
#[derive(Debug, Default)]
pub(crate) struct Links {
    open: Mutex<HashMap<SocketAddr, CancellationToken>>,
    /// One handshake at a time: who comes second finds the first one's connection.
    opening: tokio::sync::Mutex<()>,
}

/// Makes sure that requests to `server` go over a connection whose far end was checked; `uri` names it.
///
/// # Errors
/// [`SipError::Tls`] with what to do about it, or [`SipError::Io`].
pub(crate) async fn ensure(
    core: &Arc<Core>,
    server: Server,
    uri: &Uri,
    trust: &TlsTrust,
) -> Result<(), SipError> {
    if server.transport != Transport::Tls {
        return Ok(());
    }
    let _opening = core.links.opening.lock().await;
    let is_open = |token: &CancellationToken| !token.is_cancelled();
    if lock(&core.links.open).get(&server.addr).is_some_and(is_open) {
        return Ok(());
    }
    let stream = connect(server.addr, uri, trust).await?;
    let token = core.cancel.child_token();
    {
        let mut open = lock(&core.links.open);
        open.retain(|_, token| is_open(token));
        open.insert(server.addr, token.clone());
    }
    let environment = (core.endpoint.clone(), core.gate.clone(), token);
    tcp::adopt(stream, server.addr, environment).await;
    Ok(())
}

async fn connect(
    addr: SocketAddr,
    uri: &Uri,
    trust: &TlsTrust,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, SipError> {
    let host = uri.host_with_port.host.to_string();
    let name = match &uri.host_with_port.host {
        Host::IpAddr(ip) => ServerName::from(*ip),
        Host::Domain(domain) => ServerName::try_from(domain.to_string())
            .map_err(|_| SipError::Unresolved { name: host.clone() })?,
    };
    let (connector, judge) = client(trust)?;
    let failed = |hint: String| SipError::Tls {
        peer: format!("{host} ({addr})"),
        hint,
    };
    let shaken = async {
        let stream = TcpStream::connect(addr).await.map_err(|error| {
            failed(format!(
                "no connection: {error}; check that TLS is switched on there and the port is right"
            ))
        })?;
        let _ = stream.set_nodelay(true);
        connector.connect(name, stream).await.map_err(|error| {
            let seen = *lock(&judge.seen);
            failed(hint(&error, seen))
        })
    };
    tokio::time::timeout(HANDSHAKE, shaken).await.unwrap_or_else(|_| {
        Err(failed(format!(
            "no handshake within {} s; is it TLS that listens there?",
            HANDSHAKE.as_secs()
        )))
    })
}

/// What a failed handshake means and what to do.
fn hint(error: &std::io::Error, seen: Option<[u8; 32]>) -> String {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    let fingerprint = seen.map_or(String::new(), |seen| {
        format!(
            "; to trust this very certificate, set tls_fingerprint = \"{}\"",
            shown(&seen)
        )
    });
    match tls {
        Some(rustls::Error::InvalidCertificate(wrong)) => match wrong {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => {
                format!("its certificate has expired; renew it, or correct this machine's clock{fingerprint}")
            }
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                format!("its certificate is not valid yet; correct this machine's clock{fingerprint}")
            }
            CertificateError::UnknownIssuer => {
                format!(
                    "its certificate is signed by nobody we trust; set tls_ca to the file of its authority{fingerprint}"
                )
            }
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                format!(
                    "its certificate is for another name; use the name in the certificate as registrar{fingerprint}"
                )
            }
            CertificateError::ApplicationVerificationFailure => format!(
                "its certificate is not the one in tls_fingerprint; it is {}",
                seen.map_or("unknown".to_string(), |seen| shown(&seen))
            ),
            other if format!("{other:?}").contains("CaUsedAsEndEntity") => format!(
                "its certificate is an authority's own (CA:TRUE), which may not serve; have one made for the server{fingerprint}"
            ),
            other => format!("its certificate is not accepted: {other:?}{fingerprint}"),
        },
        Some(rustls::Error::InvalidMessage(_)) => "what listens there does not speak TLS".to_string(),
        Some(other) => format!("the handshake failed: {other}"),
        None => format!("the connection broke during the handshake: {error}"),
    }
}

/// Reads and checks an authority's file or a fingerprint before it is needed.
///
/// # Errors
/// As [`client`].
pub(crate) fn check_trust(trust: &TlsTrust) -> Result<(), SipError> {
    client(trust).map(|_| ())
}

/// The trust for calls to `uri`: that of the account there, else the system's authorities.
pub(crate) fn trust_for(core: &Core, uri: &Uri) -> TlsTrust {
    core.account_at(uri)
        .map(|account| account.trust.clone())
        .unwrap_or_default()
}

impl Default for TlsTrust {
    fn default() -> Self {
        TlsTrust {
            ca: None::<PathBuf>,
            fingerprint: None,
            verify: true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_are_read_as_tools_print_them() {
        let colons: String = (0..32).map(|n| format!("{n:02X}:")).collect();
        let colons = colons.trim_end_matches(':').to_string();
        let plain = colons.replace(':', "").to_lowercase();
        for text in [
            colons.clone(),
            plain,
            format!("sha256 Fingerprint={colons}"),
            format!("SHA256 Fingerprint = {colons}").replace("= ", "="),
        ] {
            let read = parse_fingerprint(&text).unwrap();
            assert_eq!((read[0], read[31]), (0, 31), "{text}");
            assert_eq!(shown(&read), colons);
        }
        for text in ["", "AB", &"G".repeat(64), &"A".repeat(63), &"é".repeat(32)] {
            assert!(parse_fingerprint(text).is_err(), "{text}");
        }
    }
}
