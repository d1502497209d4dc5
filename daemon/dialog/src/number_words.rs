//! The English words for small numbers, both ways: what callers dictate, what the voice says.

/// Zero to nineteen.
pub const UNITS: [&str; 20] = [
    "zero",
    "one",
    "two",
    "three",
    "four",
    "five",
    "six",
    "seven",
    "eight",
    "nine",
    "ten",
    "eleven",
    "twelve",
    "thirteen",
    "fourteen",
    "fifteen",
    "sixteen",
    "seventeen",
    "eighteen",
    "nineteen",
];

/// Twenty to ninety.
pub const TENS: [&str; 8] = [
    "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety",
];

/// The value of a (lower-case) word from `zero` to `nineteen`.
#[must_use]
pub fn unit(word: &str) -> Option<usize> {
    UNITS.iter().position(|known| *known == word)
}

/// How many tens a (lower-case) word from `twenty` to `ninety` stands for: 2 to 9.
#[must_use]
pub fn tens(word: &str) -> Option<usize> {
    TENS.iter().position(|known| *known == word).map(|at| at + 2)
}

/// Whether callers who dictate mean 0 by this (lower-case) word.
#[must_use]
pub fn is_spoken_zero(word: &str) -> bool {
    matches!(word, "oh" | "o" | "nought")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_have_their_values() {
        for (word, units, tenths) in [
            ("zero", Some(0), None),
            ("ten", Some(10), None),
            ("nineteen", Some(19), None),
            ("twenty", None, Some(2)),
            ("ninety", None, Some(9)),
            ("hundred", None, None),
            ("", None, None),
        ] {
            assert_eq!((unit(word), tens(word)), (units, tenths), "{word}");
        }
    }
}
