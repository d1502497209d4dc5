//! From the bytes of tokens to text that may be sent: whole characters only, and nothing of a stop text.

/// Collects a generation's bytes and lets go of what is certain.
#[derive(Debug)]
pub(crate) struct TextOut {
    /// Bytes of a character that is not complete yet; at most 3.
    partial: Vec<u8>,
    /// Text that may turn out to be the beginning of a stop text.
    held: String,
    stops: Vec<String>,
}

/// What [`TextOut::push`] lets go.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Send this (possibly empty) and go on.
    More(String),
    /// Send this and end: a stop text follows.
    Last(String),
}

impl TextOut {
    pub(crate) fn new(stops: Vec<String>) -> Self {
        Self {
            partial: Vec::new(),
            held: String::new(),
            stops,
        }
    }

    pub(crate) fn push(&mut self, bytes: &[u8]) -> Piece {
        self.partial.extend_from_slice(bytes);
        self.take_characters();
        if let Some(at) = self.stops.iter().filter_map(|s| self.held.find(s.as_str())).min() {
            self.held.truncate(at);
            return Piece::Last(std::mem::take(&mut self.held));
        }
        let keep = self
            .stops
            .iter()
            .map(|s| overlap(&self.held, s))
            .max()
            .unwrap_or(0);
        let tail = self.held.split_off(self.held.len() - keep);
        Piece::More(std::mem::replace(&mut self.held, tail))
    }

    /// The end: what was held back is text after all.
    pub(crate) fn finish(&mut self) -> String {
        if !self.partial.is_empty() {
            self.partial.clear();
            self.held.push(char::REPLACEMENT_CHARACTER);
        }
        std::mem::take(&mut self.held)
    }

    /// Moves complete characters to `held`; bytes that can never become one turn into U+FFFD.
    fn take_characters(&mut self) {
        let bytes = std::mem::take(&mut self.partial);
        let mut chunks = bytes.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.held.push_str(chunk.valid());
            let invalid = chunk.invalid();
            if chunks.peek().is_none() && could_begin_character(invalid) {
                self.partial = invalid.to_vec();
            } else if !invalid.is_empty() {
                self.held.push(char::REPLACEMENT_CHARACTER);
            }
        }
    }
}

/// Whether more bytes could make a character of these.
fn could_begin_character(bytes: &[u8]) -> bool {
    match std::str::from_utf8(bytes) {
        Ok(_) => false,
        Err(e) => e.valid_up_to() == 0 && e.error_len().is_none(),
    }
}

/// Length of the longest end of `text` that begins `stop` [bytes].
fn overlap(text: &str, stop: &str) -> usize {
    (1..stop.len().min(text.len() + 1))
        .rev()
        .find(|&n| stop.is_char_boundary(n) && text.ends_with(&stop[..n]))
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(stops: &[&str], pieces: &[&[u8]]) -> (Vec<String>, bool) {
        let mut out = TextOut::new(stops.iter().map(ToString::to_string).collect());
        let mut sent = Vec::new();
        for piece in pieces {
            match out.push(piece) {
                Piece::More(text) => sent.push(text),
                Piece::Last(text) => {
                    sent.push(text);
                    return (sent, true);
                }
            }
        }
        sent.push(out.finish());
        (sent, false)
    }

    #[test]
    fn characters_are_never_split() {
        let euro = "€".as_bytes();
        assert_eq!(
            run(&[], &[&euro[..1], &euro[1..2], &euro[2..], b"!"]).0,
            ["", "", "€", "!", ""]
        );
        assert_eq!(run(&[], &[b"a\xff", b"b"]).0, ["a\u{fffd}", "b", ""]);
        assert_eq!(run(&[], &[&euro[..2], b"x"]).0, ["", "\u{fffd}x", ""]);
        assert_eq!(run(&[], &[&euro[..2]]).0, ["", "\u{fffd}"]);
    }

    #[test]
    fn stop_texts_are_held_back_and_end_the_text() {
        type Case<'a> = (&'a [&'a str], &'a [&'a [u8]], &'a str, bool);
        let cases: &[Case] = &[
            (&["\nUser:"], &[b"Yes.", b"\nUs", b"er: hi"], "Yes.", true),
            (&["\nUser:"], &[b"Yes.", b"\nUs", b"ual."], "Yes.\nUsual.", false),
            (&["###", "END"], &[b"a EN", b"D b ###"], "a ", true),
            (&["aab"], &[b"aa", b"ab!"], "a", true),
            (&["é!"], &["xé".as_bytes(), b"?"], "xé?", false),
            (&["stop"], &[b"s", b"t"], "st", false),
        ];
        for (stops, pieces, want, stopped) in cases {
            let (sent, ended) = run(stops, pieces);
            assert_eq!((sent.concat().as_str(), ended), (*want, *stopped), "{stops:?}");
        }
    }
}
