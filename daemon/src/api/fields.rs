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

/// A number within bounds, which may be absent.
pub fn maybe_within<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(
    deserializer: D,
) -> Result<Option<u64>, D::Error> {
    match Option::<u64>::deserialize(deserializer)? {
        Some(number) if !(LEAST..=MOST).contains(&number) => Err(D::Error::custom(format!(
            "{number} is not within {LEAST} to {MOST}"
        ))),
        number => Ok(number),
    }
}

/// A number within bounds.
pub fn within<'de, D: Deserializer<'de>, const LEAST: u64, const MOST: u64>(
    deserializer: D,
) -> Result<u64, D::Error> {
    let number = u64::deserialize(deserializer)?;
    if (LEAST..=MOST).contains(&number) {
        Ok(number)
    } else {
        Err(D::Error::custom(format!(
            "{number} is not within {LEAST} to {MOST}"
        )))
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
        #[serde(default, deserialize_with = "maybe_within::<_, 1, 9>")]
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
        for bad in [
            r#"{"said":"hello!"}"#,
            r#"{"said":" \u0000 "}"#,
            r#"{"said":""}"#,
            r#"{"said":"a","name":""}"#,
            r#"{"said":"a","name":"abcd"}"#,
            r#"{"said":"a","number":0}"#,
            r#"{"said":"a","number":10}"#,
            r#"{"said":"a","number":1.5}"#,
            r#"{"said":"a","more":1}"#,
            r#"{"name":"a"}"#,
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
