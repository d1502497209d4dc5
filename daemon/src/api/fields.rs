//! Fields: bounds of what requests bring, checked where it is read, so that the document's promises are the program's.

use serde::{Deserialize, Deserializer, de::Error};

/// Latest time that is taken: the end of the year 9999 [Unix ms].
pub const MAX_TIME: u64 = 253_402_300_799_999;

fn bounded<E: Error>(text: String, least: usize, most: usize) -> Result<String, E> {
    let length = text.chars().count();
    if (least..=most).contains(&length) {
        Ok(text)
    } else {
        Err(E::custom(format!(
            "a text of {length} characters; wanted are {least} to {most}"
        )))
    }
}

/// A text of so many characters.
pub fn text<'de, D: Deserializer<'de>, const LEAST: usize, const MOST: usize>(
    deserializer: D,
) -> Result<String, D::Error> {
    bounded(String::deserialize(deserializer)?, LEAST, MOST)
}

/// The same, which may be absent.
pub fn maybe_text<'de, D: Deserializer<'de>, const LEAST: usize, const MOST: usize>(
    deserializer: D,
) -> Result<Option<String>, D::Error> {
    Option::<String>::deserialize(deserializer)?
        .map(|text| bounded(text, LEAST, MOST))
        .transpose()
}

/// A text with something to read in it.
pub fn saying<'de, D: Deserializer<'de>, const MOST: usize>(deserializer: D) -> Result<String, D::Error> {
    let text = text::<D, 1, MOST>(deserializer)?;
    if text.chars().any(|c| c != '\0' && !c.is_whitespace()) {
        Ok(text)
    } else {
        Err(D::Error::custom("a text that says nothing"))
    }
}

/// A number of a query within bounds, which may be absent.
pub fn maybe_within<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    Option::<u64>::deserialize(deserializer)?
        .map(bounded_number::<_, LEAST, MOST>)
        .transpose()
}

/// A whole number of a body within bounds.
pub fn whole<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(
    deserializer: D,
) -> Result<u64, D::Error> {
    bounded_number::<_, LEAST, MOST>(Whole::deserialize(deserializer)?.0)
}

/// The same, which may be absent.
pub fn maybe_whole<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    Option::<Whole>::deserialize(deserializer)?
        .map(|number| bounded_number::<_, LEAST, MOST>(number.0))
        .transpose()
}

fn bounded_number<E: Error, const LEAST: u64, const MOST: u64>(number: u64) -> Result<u64, E> {
    if (LEAST..=MOST).contains(&number) {
        Ok(number)
    } else {
        Err(E::custom(format!("{number} is not within {LEAST} to {MOST}")))
    }
}

/// A whole number as JSON Schema has it: 8000.0 is one, too.
struct Whole(u64);

impl<'de> Deserialize<'de> for Whole {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = serde_json::Number::deserialize(deserializer)?;
        let real = || {
            number
                .as_f64()
                .filter(|real| real.fract() == 0.0 && (0.0..=9e15).contains(real))
        };
        number
            .as_u64()
            .or_else(|| real().map(|real| real as u64))
            .map(Whole)
            .ok_or_else(|| D::Error::custom(format!("{number} is no whole number from 0")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Bounded {
        #[serde(deserialize_with = "saying::<_, 5>")]
        said: String,
        #[serde(default, deserialize_with = "maybe_text::<_, 1, 3>")]
        name: Option<String>,
        #[serde(default, deserialize_with = "maybe_whole::<_, 1, 9>")]
        number: Option<u64>,
    }

    #[test]
    fn bounds_hold() {
        let read = serde_json::from_str::<Bounded>;
        let whole = read(r#"{"said":"hello","name":"äöü","number":9}"#).expect("within");
        assert_eq!(
            (whole.said.as_str(), whole.name.as_deref(), whole.number),
            ("hello", Some("äöü"), Some(9))
        );
        assert!(read(r#"{"said":"a","name":null}"#).is_ok());
        assert_eq!(
            read(r#"{"said":"a","number":3.0}"#).expect("whole").number,
            Some(3)
        );
        for bad in [
            r#"{"said":"hello!"}"#,
            r#"{"said":" \u0000 "}"#,
            r#"{"said":""}"#,
            r#"{"said":"a","name":""}"#,
            r#"{"said":"a","name":"abcd"}"#,
            r#"{"said":"a","number":0}"#,
            r#"{"said":"a","number":10}"#,
            r#"{"said":"a","number":1.5}"#,
            r#"{"said":"a","number":-1}"#,
            r#"{"said":"a","number":1e300}"#,
            r#"{"said":"a","number":"1"}"#,
            r#"{"said":"a","more":1}"#,
            r#"{"name":"a"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
