//! Inventory: the sound devices and serial ports that this machine has.
//!
//! Looks only; nothing is played, recorded or written to a port.

use std::collections::BTreeSet;
use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::thread;

use cpal::traits::{DeviceTrait, HostTrait};
use serde::Serialize;
use tokio_serial::SerialPortType;

use crate::HwError;

/// Rates a line could want [Hz]: telephone, wideband, Piper's voices, sound cards.
const ASKED_RATES_HZ: [u32; 5] = [8_000, 16_000, 22_050, 44_100, 48_000];

/// What the machine has.
#[derive(Debug, Default, Serialize)]
pub struct Inventory {
    /// Sound devices that can be opened in at least one direction.
    pub sound: Vec<SoundDevice>,
    /// Serial ports that exist; a modem may be behind any of them.
    pub serial: Vec<SerialPort>,
    /// What could not be found out, each with its reason.
    #[serde(skip)]
    pub problems: Vec<HwError>,
}

/// One ALSA device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SoundDevice {
    /// ALSA's name for it, as it goes into a configuration, such as `plughw:CARD=0,DEV=0`.
    pub id: String,
    /// Its description for people.
    pub name: String,
    /// Rates it records at; `None` when it has no microphone or is taken by another program.
    pub capture: Option<Rates>,
    /// Rates it plays at; `None` when it has no loudspeaker or is taken by another program.
    pub playback: Option<Rates>,
}

/// Sample rates and channels of one direction of a device.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rates {
    /// Those of the common rates that the device offers [Hz], ascending.
    pub hz: Vec<u32>,
    /// Fewest channels on offer.
    pub min_channels: u16,
    /// Most channels on offer.
    pub max_channels: u16,
}

/// One serial port.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct SerialPort {
    /// Its device file, such as `/dev/ttyACM0`.
    pub path: PathBuf,
    /// How it is attached.
    pub attached_by: AttachedBy,
    /// Whether this user may open it for reading and writing.
    pub permitted: bool,
}

/// How a serial port is attached to the machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum AttachedBy {
    /// USB: most voice modems.
    Usb(UsbIds),
    /// A PCI card.
    Pci,
    /// Bluetooth.
    Bluetooth,
    /// On the board, or unknown. Many boards list ports that have no socket.
    Board,
}

/// Who a USB device says it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct UsbIds {
    /// Vendor, such as 0x0572 (Conexant).
    pub vendor: u16,
    /// Product within the vendor's numbers.
    pub product: u16,
    /// Maker and product in words, as far as the device gives them.
    pub words: String,
}

/// Lists sound devices and serial ports.
///
/// Takes up to a few seconds on a machine with many sound devices. Never fails as a whole: what cannot be
/// listed is named in [`Inventory::problems`].
pub fn inventory() -> Inventory {
    let mut inventory = Inventory::default();
    match sound_devices() {
        Ok(devices) => inventory.sound = devices,
        Err(problem) => inventory.problems.push(problem),
    }
    match serial_ports() {
        Ok(ports) => inventory.serial = ports,
        Err(problem) => inventory.problems.push(problem),
    }
    inventory
}

/// On a thread of its own, since ALSA complains on stderr about every virtual device that has no card, and its
/// error handler can only be replaced for a whole thread.
fn sound_devices() -> Result<Vec<SoundDevice>, HwError> {
    let listing = thread::spawn(|| {
        // Without the handler the list is the same, only noisier.
        let quiet = alsa::Output::local_error_handler();
        let devices = cpal::default_host()
            .devices()?
            .filter_map(|device| describe(&device))
            .collect();
        drop(quiet);
        Ok(devices)
    });
    match listing.join() {
        Ok(devices) => devices,
        Err(panic) => std::panic::resume_unwind(panic),
    }
}

/// `None` for a device that opens in neither direction (ALSA lists many that exist in name only).
fn describe(device: &cpal::Device) -> Option<SoundDevice> {
    let capture = device.supported_input_configs().ok().and_then(rates);
    let playback = device.supported_output_configs().ok().and_then(rates);
    if capture.is_none() && playback.is_none() {
        return None;
    }
    let id = device.id().ok()?.id().to_owned();
    let name = device
        .description()
        .map_or_else(|_| id.clone(), |description| description.name().to_owned());
    Some(SoundDevice {
        id,
        name,
        capture,
        playback,
    })
}

fn rates(configs: impl Iterator<Item = cpal::SupportedStreamConfigRange>) -> Option<Rates> {
    let mut hz = BTreeSet::new();
    let mut channels = BTreeSet::new();
    for config in configs {
        channels.insert(config.channels());
        let range = config.min_sample_rate()..=config.max_sample_rate();
        hz.extend(ASKED_RATES_HZ.into_iter().filter(|rate| range.contains(rate)));
    }
    Some(Rates {
        hz: hz.into_iter().collect(),
        min_channels: channels.first().copied()?,
        max_channels: channels.last().copied()?,
    })
}

fn serial_ports() -> Result<Vec<SerialPort>, HwError> {
    // The list is read from here, and its absence (a container without sysfs) would panic in the library.
    if !Path::new("/sys/class/tty").is_dir() {
        return Ok(Vec::new());
    }
    let mut ports: Vec<SerialPort> = tokio_serial::available_ports()
        .map_err(HwError::Ports)?
        .into_iter()
        .map(serial_port)
        .collect();
    ports.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(ports)
}

fn serial_port(info: tokio_serial::SerialPortInfo) -> SerialPort {
    let attached_by = match info.port_type {
        SerialPortType::UsbPort(usb) => {
            let words: Vec<String> = [usb.manufacturer, usb.product].into_iter().flatten().collect();
            AttachedBy::Usb(UsbIds {
                vendor: usb.vid,
                product: usb.pid,
                words: words.join(" "),
            })
        }
        SerialPortType::PciPort => AttachedBy::Pci,
        SerialPortType::BluetoothPort => AttachedBy::Bluetooth,
        SerialPortType::Unknown => AttachedBy::Board,
    };
    let path = PathBuf::from(info.port_name);
    let permitted = may_open(&path);
    SerialPort {
        path,
        attached_by,
        permitted,
    }
}

fn may_open(path: &Path) -> bool {
    // Neither wait for a carrier nor become the controlling terminal.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(flags)
        .open(path);
    // Busy or without hardware is not forbidden.
    !opened.is_err_and(|error| error.kind() == std::io::ErrorKind::PermissionDenied)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_usb_modems_by_their_ids() {
        let usb = tokio_serial::UsbPortInfo {
            vid: 0x0572,
            pid: 0x1340,
            serial_number: Some("24680246".into()),
            manufacturer: Some("Conexant".into()),
            product: Some("USB Modem".into()),
        };
        let info = tokio_serial::SerialPortInfo {
            port_name: "/dev/attendant-test-no-such-port".into(),
            port_type: SerialPortType::UsbPort(usb),
        };
        let port = serial_port(info);
        let AttachedBy::Usb(ids) = port.attached_by else {
            panic!("not seen as USB")
        };
        assert_eq!(
            (ids.vendor, ids.product, ids.words.as_str()),
            (0x0572, 0x1340, "Conexant USB Modem")
        );
        assert!(port.permitted, "a missing port is not a forbidden one");
    }

    #[test]
    fn lists_without_failing() {
        let inventory = inventory();
        for device in &inventory.sound {
            assert!(
                device.capture.is_some() || device.playback.is_some(),
                "{device:?}"
            );
        }
        for port in &inventory.serial {
            assert!(port.path.starts_with("/dev"), "{port:?}");
        }
    }
}
