//! Reader of CTranslate2 model files (`model.bin`), the form in which packages carry Whisper.
//!
//! ```text
//! u32 format | str spec | u32 revision | u32 count | count × variable | u32 aliases | aliases × (str, str)
//! variable: str name | u8 rank | rank × u32 extent | u8 type | u32 bytes | data        (little-endian)
//! str: u16 length including the closing NUL | bytes
//! ```
//! Source: CTranslate2, src/models/model.cc (binary format 6).

use std::collections::BTreeMap;

use crate::error::ModelError;
use crate::q8_0;

/// The format this reads.
const FORMAT: u32 = 6;
/// More variables than any Whisper model has; bounds what a damaged count can make us do.
const MAX_VARIABLES: u32 = 10_000;

/// A parsed file; borrows the bytes it was read from.
#[derive(Debug)]
pub struct Ct2<'a> {
    /// Model specification, e.g. "WhisperSpec".
    pub spec: String,
    variables: BTreeMap<String, Variable<'a>>,
}

/// One stored array.
#[derive(Debug, Clone, Copy)]
pub struct Variable<'a> {
    dtype: Dtype,
    rank: usize,
    extents: [usize; 4],
    data: &'a [u8],
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dtype {
    F32,
    I8,
    I16,
    I32,
    F16,
    Bf16,
}

impl<'a> Ct2<'a> {
    /// Parses a whole file.
    ///
    /// # Errors
    /// [`ModelError::Convert`] when the bytes are cut short, of another format, or inconsistent.
    pub fn parse(bytes: &'a [u8]) -> Result<Ct2<'a>, ModelError> {
        let mut cursor = Cursor { bytes };
        let format = cursor.u32()?;
        if format != FORMAT {
            return Err(fail(format!(
                "CTranslate2 format {format}, only {FORMAT} is known"
            )));
        }
        let spec = cursor.string()?;
        let _revision = cursor.u32()?;
        let count = cursor.u32()?;
        if count > MAX_VARIABLES {
            return Err(fail(format!("{count} variables are more than any model has")));
        }
        let mut variables = BTreeMap::new();
        for _ in 0..count {
            let name = cursor.string()?;
            let variable = cursor.variable(&name)?;
            variables.insert(name, variable);
        }
        Ok(Ct2 { spec, variables })
    }

    /// The variable of that name.
    ///
    /// # Errors
    /// [`ModelError::Convert`] when the file has none.
    pub fn get(&self, name: &str) -> Result<Variable<'a>, ModelError> {
        self.variables
            .get(name)
            .copied()
            .ok_or_else(|| fail(format!("there is no variable '{name}'")))
    }

    /// Whether there is a variable of that name.
    pub fn has(&self, name: &str) -> bool {
        self.variables.contains_key(name)
    }
}

impl Variable<'_> {
    /// The extents, outermost first.
    pub fn shape(&self) -> &[usize] {
        self.extents.get(..self.rank).unwrap_or(&[])
    }

    /// The values as single precision; exact for every stored float.
    ///
    /// # Errors
    /// [`ModelError::Convert`] for integer (already quantised) weights.
    pub fn to_f32(self) -> Result<Vec<f32>, ModelError> {
        match self.dtype {
            Dtype::F32 => Ok(words::<4>(self.data).map(f32::from_le_bytes).collect()),
            Dtype::F16 => Ok(words::<2>(self.data)
                .map(|w| q8_0::f32_from_f16(u16::from_le_bytes(w)))
                .collect()),
            Dtype::Bf16 => Ok(words::<2>(self.data)
                .map(|w| f32::from_bits(u32::from(u16::from_le_bytes(w)) << 16))
                .collect()),
            Dtype::I8 | Dtype::I16 | Dtype::I32 => Err(fail(
                "the weights are already quantised to integers; a float16 package is needed".into(),
            )),
        }
    }

    /// A scalar setting such as the number of heads.
    ///
    /// # Errors
    /// [`ModelError::Convert`] when it is not a non-negative integer.
    pub fn to_count(self) -> Result<u32, ModelError> {
        let value = match self.dtype {
            Dtype::I8 => words::<1>(self.data)
                .next()
                .map(|w| i32::from(i8::from_le_bytes(w))),
            Dtype::I16 => words::<2>(self.data)
                .next()
                .map(|w| i32::from(i16::from_le_bytes(w))),
            Dtype::I32 => words::<4>(self.data).next().map(i32::from_le_bytes),
            Dtype::F32 | Dtype::F16 | Dtype::Bf16 => None,
        };
        value
            .and_then(|v| u32::try_from(v).ok())
            .ok_or_else(|| fail("a count is not an integer".into()))
    }
}

impl Dtype {
    fn from_id(id: u8) -> Option<(Dtype, usize)> {
        match id {
            0 => Some((Dtype::F32, 4)),
            1 => Some((Dtype::I8, 1)),
            2 => Some((Dtype::I16, 2)),
            3 => Some((Dtype::I32, 4)),
            4 => Some((Dtype::F16, 2)),
            5 => Some((Dtype::Bf16, 2)),
            _ => None,
        }
    }
}

/// What is left to read.
struct Cursor<'a> {
    bytes: &'a [u8],
}

impl<'a> Cursor<'a> {
    fn take(&mut self, count: usize) -> Result<&'a [u8], ModelError> {
        let Some((taken, rest)) = self.bytes.split_at_checked(count) else {
            return Err(fail("the file is cut short".into()));
        };
        self.bytes = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ModelError> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N)?);
        Ok(out)
    }

    fn u8(&mut self) -> Result<u8, ModelError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    fn u32(&mut self) -> Result<u32, ModelError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    fn string(&mut self) -> Result<String, ModelError> {
        let length = u16::from_le_bytes(self.array()?);
        let bytes = self.take(usize::from(length))?;
        let text = bytes.strip_suffix(&[0]).unwrap_or(bytes);
        String::from_utf8(text.to_vec()).map_err(|_| fail("a name is not text".into()))
    }

    fn variable(&mut self, name: &str) -> Result<Variable<'a>, ModelError> {
        let rank = usize::from(self.u8()?);
        let mut extents = [1usize; 4];
        let Some(used) = extents.get_mut(..rank) else {
            return Err(fail(format!("'{name}' has {rank} dimensions")));
        };
        for extent in used {
            *extent = self.u32()? as usize;
        }
        let id = self.u8()?;
        let (dtype, width) =
            Dtype::from_id(id).ok_or_else(|| fail(format!("'{name}' has the unknown type {id}")))?;
        let size = self.u32()? as usize;
        let expected = extents
            .iter()
            .try_fold(width, |size, extent| size.checked_mul(*extent));
        if expected != Some(size) {
            return Err(fail(format!(
                "'{name}' holds {size} bytes, which does not fit its shape"
            )));
        }
        Ok(Variable {
            dtype,
            rank,
            extents,
            data: self.take(size)?,
        })
    }
}

fn words<const N: usize>(data: &[u8]) -> impl Iterator<Item = [u8; N]> + '_ {
    data.as_chunks::<N>().0.iter().copied()
}

fn fail(reason: String) -> ModelError {
    ModelError::Convert {
        what: "the CTranslate2 model".into(),
        reason,
    }
}

#[cfg(test)]
pub(crate) mod fixture {
    //! Writes small CTranslate2 files for tests.

    use crate::q8_0::f16_bits;

    /// A file with half-precision arrays and 16-bit scalars.
    pub fn file(spec: &str, arrays: &[(String, Vec<usize>, Vec<f32>)], scalars: &[(&str, i16)]) -> Vec<u8> {
        let mut out = 6u32.to_le_bytes().to_vec();
        string(&mut out, spec);
        out.extend(3u32.to_le_bytes());
        out.extend(((arrays.len() + scalars.len()) as u32).to_le_bytes());
        for (name, shape, values) in arrays {
            string(&mut out, name);
            out.push(shape.len() as u8);
            shape
                .iter()
                .for_each(|extent| out.extend((*extent as u32).to_le_bytes()));
            out.push(4);
            out.extend((values.len() as u32 * 2).to_le_bytes());
            values
                .iter()
                .for_each(|value| out.extend(f16_bits(*value).to_le_bytes()));
        }
        for (name, value) in scalars {
            string(&mut out, name);
            out.extend([0, 2]);
            out.extend(2u32.to_le_bytes());
            out.extend(value.to_le_bytes());
        }
        out.extend(0u32.to_le_bytes());
        out
    }

    fn string(out: &mut Vec<u8>, text: &str) {
        out.extend((text.len() as u16 + 1).to_le_bytes());
        out.extend(text.as_bytes());
        out.push(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        fixture::file(
            "WhisperSpec",
            &[("a/weight".into(), vec![2, 3], vec![0.0, 1.0, -2.5, 3.0, 4.0, 5.0])],
            &[("num_heads", 6)],
        )
    }

    #[test]
    fn reads_arrays_and_scalars() {
        let bytes = sample();
        let file = Ct2::parse(&bytes).unwrap();
        assert_eq!(file.spec, "WhisperSpec");
        assert_eq!(file.get("a/weight").unwrap().shape(), [2, 3]);
        assert_eq!(
            file.get("a/weight").unwrap().to_f32().unwrap(),
            [0.0, 1.0, -2.5, 3.0, 4.0, 5.0]
        );
        assert_eq!(file.get("num_heads").unwrap().to_count().unwrap(), 6);
        assert!(file.get("num_heads").unwrap().to_f32().is_err());
        assert!(file.get("b").is_err());
        assert!(file.has("a/weight") && !file.has("b"));
    }

    #[test]
    fn refuses_every_truncation_without_panicking() {
        let bytes = sample();
        // The alias table at the end is not needed.
        for length in 0..bytes.len() - 4 {
            assert!(Ct2::parse(&bytes[..length]).is_err(), "{length} bytes");
        }
    }

    #[test]
    fn refuses_other_formats_and_wild_numbers() {
        assert!(
            Ct2::parse(&[9, 0, 0, 0, 0, 0])
                .unwrap_err()
                .to_string()
                .contains("format 9")
        );
        let mut bytes = sample();
        let count_at = 4 + 2 + 12 + 4;
        bytes[count_at..count_at + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert!(Ct2::parse(&bytes).is_err());
    }
}
