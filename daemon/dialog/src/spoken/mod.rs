//! Spoken forms: written English as the words that the voice should say.
//!
//! The synthesiser reads "555-0199" as "five hundred fifty-five minus …" and "a.m." as "am". So everything
//! but plain words is written out here: numbers, times, dates, money, telephone numbers in groups, addresses,
//! units, abbreviations; Markdown and emoji go. The result has no digit and no sign left, only words and the
//! marks that make pauses.
//!
//! ```text
//! text --markup::strip--> plain text --tokens--> ranges apart ("9-5" → "9", "to", "5") --Reader--> words
//! ```
//! American reading: month first in "3/5/2026", no "and" in numbers.

mod abbreviations;
mod address;
mod amount;
mod markup;
pub mod numbers;
mod phone;
mod reader;
mod time;
mod token;
mod word;

use reader::Reader;
use token::Token;

/// Most text read at once [bytes]; a clause is far shorter. The rest is cut off.
const MAX_BYTES: usize = 20_000;

/// The words for `text`.
pub fn spoken(text: &str) -> String {
    let mut end = text.len().min(MAX_BYTES);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let plain = markup::strip(&text[..end]);
    let tokens: Vec<Token> = plain.split_whitespace().flat_map(token::split_range).collect();
    Reader::new(&tokens).run()
}

/// Letters one by one, as the synthesiser spells them right: `abc` → "A-B-C".
pub(crate) fn letters(word: &str) -> String {
    word.chars()
        .map(|c| c.to_uppercase().to_string())
        .collect::<Vec<_>>()
        .join("-")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sentences() {
        let cases: &[(&str, &str)] = &[
            ("", ""),
            ("Hello there.", "Hello there."),
            (
                "We open at 9 a.m. and close at 5:30 p.m.",
                "We open at nine AM and close at five thirty PM.",
            ),
            (
                "We close at 5 p.m. Come early.",
                "We close at five PM. Come early.",
            ),
            ("Open 9-5, Mon-Fri.", "Open nine to five, Monday to Friday."),
            (
                "Open 9am–5pm, Mon–Sat",
                "Open nine AM to five PM, Monday to Saturday",
            ),
            ("From 9:00 - 17:00.", "From nine o'clock to seventeen hundred."),
            ("Come at 12:00 pm.", "Come at noon."),
            ("Call 555-0199.", "Call five five five, zero one nine nine."),
            (
                "Call (555) 123-4567 today.",
                "Call five five five, one two three, four five six seven today.",
            ),
            (
                "Call +1 555 123 4567, please.",
                "Call plus one, five five five, one two three, four five six seven, please.",
            ),
            ("It's $49.", "It's forty-nine dollars."),
            (
                "It costs $49.99 per visit.",
                "It costs forty-nine dollars and ninety-nine cents per visit.",
            ),
            ("About $20-30.", "About twenty to thirty dollars."),
            ("That is $45/hour.", "That is forty-five dollars per hour."),
            (
                "Over $1.5 million was paid.",
                "Over one point five million dollars was paid.",
            ),
            (
                "A 15% discount, 10-20% off.",
                "A fifteen percent discount, ten to twenty percent off.",
            ),
            (
                "On March 5, 2026, at noon.",
                "On March fifth, twenty twenty-six, at noon.",
            ),
            ("On March 5th.", "On March fifth."),
            ("Due 2026-03-05.", "Due March fifth, twenty twenty-six."),
            ("Due 3/5/2026.", "Due March fifth, twenty twenty-six."),
            ("On 3/5.", "On March fifth."),
            ("On 5 March 2026.", "On the fifth of March, twenty twenty-six."),
            ("On the 5th of March.", "On the fifth of March."),
            ("On Mon. at 9", "On Monday at nine"),
            ("In Jan. 2026 we moved.", "In January twenty twenty-six we moved."),
            ("Since 1998.", "Since nineteen ninety-eight."),
            ("In 2005 and 2026.", "In two thousand five and twenty twenty-six."),
            ("We have 2000 customers.", "We have two thousand customers."),
            ("1,234 cars", "one thousand two hundred thirty-four cars"),
            (
                "The 21st floor, the 1990s.",
                "The twenty-first floor, the nineteen nineties.",
            ),
            (
                "Dr. Smith lives at 12 Oak St.",
                "Doctor Smith lives at twelve Oak Street.",
            ),
            (
                "We are at 1234 Mill Rd., Springfield, IL 62701.",
                "We are at twelve thirty-four Mill Road, Springfield, Illinois six two seven zero one.",
            ),
            ("Ask for Mr. and Mrs. Jones.", "Ask for Mister and Missus Jones."),
            (
                "St. Mary is on Hill St. near the park.",
                "Saint Mary is on Hill Street near the park.",
            ),
            ("Room 204, suite 1200.", "Room two oh four, suite twelve hundred."),
            (
                "Write to info@hill-motors.com.",
                "Write to info at hill dash motors dot com.",
            ),
            ("See https://www.hill.com/hours!", "See hill dot com slash hours!"),
            (
                "It takes 30 min. or 1 hr.",
                "It takes thirty minutes or one hour.",
            ),
            (
                "It is 5 km away, 20kg.",
                "It is five kilometers away, twenty kilograms.",
            ),
            ("At -3°C.", "At minus three degrees Celsius."),
            ("**We're open** 24/7!", "We're open twenty-four seven!"),
            ("- Monday\n- Tuesday", "Monday. Tuesday"),
            ("1. Oil change\n2. New tires", "Oil change. New tires"),
            ("Sure \u{1F600}!", "Sure!"),
            ("Bread & butter", "Bread and butter"),
            ("Tea/coffee and/or cake", "Tea or coffee and or cake"),
            ("e.g. oil, filters, etc.", "for example oil, filters, et cetera."),
            (
                "No. 5 is alive. No. I mean it.",
                "number five is alive. No. I mean it.",
            ),
            ("Order #12345", "Order number one two three four five"),
            ("Your code is 4071.", "Your code is four zero seven one."),
            ("Use code 4071.", "Use code four zero seven one."),
            ("A 5-minute walk", "A five minute walk"),
            ("A Ford F150", "A Ford F-one five zero"),
            ("4x4 drive", "four by four drive"),
            ("2 1/2 hours", "two and one half hours"),
            ("We (the team) care.", "We, the team, care."),
            ("Yes — of course", "Yes, of course"),
            ("He said \"hi\".", "He said hi."),
            ("What?!", "What?"),
            ("3.5 stars", "three point five stars"),
            ("version 1.2.3", "version one point two point three"),
            ("I am here at 5.", "I am here at five."),
            ("You may come in March.", "You may come in March."),
            ("The cat sat. The sun set.", "The cat sat. The sun set."),
            ("R&D", "R and D"),
            ("100+ reviews", "one hundred plus reviews"),
            ("at 7 o'clock", "at seven o'clock"),
            ("COVID-19", "COVID nineteen"),
            ("007", "zero zero seven"),
            ("$", "dollars"),
            ("$5/person/day", "five dollars per person per day"),
            (
                "Springfield, IL 62704-1234.",
                "Springfield, Illinois six two seven zero four, one two three four.",
            ),
            (
                "Call 911 now, or press #.",
                "Call nine one one now, or press pound.",
            ),
            ("1000s of parts", "one thousands of parts"),
            ("The a.m. shift", "The AM shift"),
            ("On the 23rd St. side", "On the twenty-third Street side"),
            ("It's 6'2\" tall.", "It's six two tall."),
            ("Ask ext. 204.", "Ask extension two zero four."),
            ("A VIN of 1HGCM82", "A VIN of one H-G-C-M-eighty-two"),
            ("...", ""),
            ("Müller's café", "Müller's café"),
        ];
        let mut wrong = Vec::new();
        for (text, want) in cases {
            let got = spoken(text);
            if got != *want {
                wrong.push(format!("{text:?}\n   got {got:?}\n  want {want:?}"));
            }
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    proptest! {
        #[test]
        fn leaves_neither_digit_nor_sign(text in "\\PC{0,80}") {
            let words = spoken(&text);
            prop_assert!(!words.contains(|c: char| c.is_ascii_digit() || "*_#`|<>{}[]\\^~$€£%@=+&".contains(c)), "{words:?}");
        }

        #[test]
        fn leaves_neither_digit_nor_sign_of_business(
            text in "([0-9]{1,12}|[0-9]{1,2}:[0-9]{2}|\\$|€|%|-|/|\\.|,|am|p\\.m\\.|March|Mon|St\\.|km|#|\\(|\\)|@|x|th| | ){0,30}"
        ) {
            let words = spoken(&text);
            prop_assert!(!words.contains(|c: char| c.is_ascii_digit() || "*_#`|<>{}[]\\^~$€£%@=+&".contains(c)), "{words:?}");
        }
    }
}
