//! A wrapper for what must not appear in a log: numbers, names, digits.

use std::fmt;

/// Prints as `[redacted]` in every build; the value is reached by [`Redacted::expose`] alone, so that each
/// place that reads it can be found.
#[derive(Clone, Default, PartialEq, Eq, Hash)]
pub struct Redacted<T>(T);

impl<T> Redacted<T> {
    /// Hides `value` from loggers.
    pub fn new(value: T) -> Self {
        Redacted(value)
    }

    /// The value itself. Never pass it to a log macro.
    pub fn expose(&self) -> &T {
        &self.0
    }

    /// Takes the value out.
    pub fn into_inner(self) -> T {
        self.0
    }
}

impl<T> From<T> for Redacted<T> {
    fn from(value: T) -> Self {
        Redacted(value)
    }
}

impl<T> fmt::Debug for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl<T> fmt::Display for Redacted<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_nothing_of_the_value() {
        let number = Redacted::new("+15551234".to_string());
        assert_eq!(format!("{number} {number:?}"), "[redacted] [redacted]");
        assert_eq!(number.expose(), "+15551234");
    }
}
