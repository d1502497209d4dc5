//! Who holds which part of the KV cache.
//!
//! ```text
//! sequence 0 : the shared prefix (system prompt); decoded once
//! sequence n : one call; begins as a share of sequence 0, then its own history
//! ```
//!
//! The cache is unified: sequences share cells, so a prefix costs its cells once, however many calls hold it. Each
//! sequence's list of tokens is exactly what the cache holds of it; a new prompt keeps the longest common beginning.
//! When a conversation lost its oldest exchanges, what followed them is moved up instead of being decoded again.

use std::ops::Range;

use crate::llama::{Llama, Seq, Token};

/// The cache itself.
pub(crate) trait Kv {
    /// Forgets `seq` from position `from` on.
    fn forget(&mut self, seq: Seq, from: usize);
    /// Lets the empty sequence `to` share the first `len` positions of `from`.
    fn share(&mut self, from: Seq, to: Seq, len: usize);
    /// Forgets the positions in `range` of `seq` and moves those behind it up to close the gap; none of them is
    /// shared. False when this model cannot.
    fn cut(&mut self, seq: Seq, range: Range<usize>) -> bool;
}

impl Kv for Llama {
    fn forget(&mut self, seq: Seq, from: usize) {
        Llama::forget(self, seq, from);
    }
    fn share(&mut self, from: Seq, to: Seq, len: usize) {
        Llama::share(self, from, to, len);
    }
    fn cut(&mut self, seq: Seq, range: Range<usize>) -> bool {
        Llama::cut(self, seq, range)
    }
}

/// Every sequence but idle ones is needed, and there is no room.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Full;

#[derive(Debug, Default)]
struct Holding {
    call: Option<u64>,
    tokens: Vec<Token>,
    /// Of these, cells held by sequence 0 as well.
    shared: usize,
    /// A request is under way, or waits to begin.
    busy: bool,
    /// Room promised to that request, `tokens` included.
    promised: usize,
    /// When it was last used.
    used: u64,
}

impl Holding {
    fn own(&self) -> usize {
        self.tokens.len().max(self.promised) - self.shared
    }
}

/// Book of the sequences. Index 0 is the prefix.
#[derive(Debug)]
pub(crate) struct Cache {
    capacity: usize,
    holdings: Vec<Holding>,
    clock: u64,
}

/// Tokens in a row that must agree before they are moved up: fewer may agree by chance.
const WORTH_MOVING: usize = 24;

/// The prefix's sequence.
pub(crate) const PREFIX: usize = 0;

impl Cache {
    /// For `calls` calls and `capacity` tokens in all.
    pub(crate) fn new(calls: usize, capacity: usize) -> Self {
        Self {
            capacity,
            holdings: (0..=calls).map(|_| Holding::default()).collect(),
            clock: 0,
        }
    }

    pub(crate) fn capacity(&self) -> usize {
        self.capacity
    }

    /// The sequence for a call: its own, a free one, or that of the call idle longest (which loses it).
    pub(crate) fn claim(&mut self, kv: &mut impl Kv, call: u64) -> Result<usize, Full> {
        let calls = 1..self.holdings.len();
        let own = calls.clone().find(|&s| self.holdings[s].call == Some(call));
        let free = || calls.clone().find(|&s| self.holdings[s].call.is_none());
        let seq = match own.or_else(free) {
            Some(seq) => seq,
            None => {
                let seq = self.idlest(calls).ok_or(Full)?;
                self.clear(kv, seq);
                seq
            }
        };
        self.holdings[seq].call = Some(call);
        self.holdings[seq].busy = true;
        Ok(seq)
    }

    /// Prepares a sequence for `prompt` and up to `more` tokens behind it; at least the last `fresh` tokens of the
    /// prompt are to be decoded again. Returns how many tokens of the prompt it holds already.
    pub(crate) fn begin(
        &mut self,
        kv: &mut impl Kv,
        seq: usize,
        prompt: &[Token],
        more: usize,
        fresh: usize,
    ) -> Result<usize, Full> {
        let most = prompt.len().saturating_sub(fresh);
        self.close_gap(kv, seq, prompt);
        let own = common(&self.holdings[seq].tokens, prompt).min(most);
        let prefix = if seq == PREFIX {
            0
        } else {
            common(&self.holdings[PREFIX].tokens, prompt).min(most)
        };
        if prefix > own {
            self.trim(kv, seq, 0);
            kv.share(seq_id(PREFIX), seq_id(seq), prefix);
            let holding = &mut self.holdings[seq];
            holding.tokens.extend_from_slice(&prompt[..prefix]);
            holding.shared = prefix;
        } else {
            self.trim(kv, seq, own);
        }
        self.clock += 1;
        self.holdings[seq].used = self.clock;
        self.holdings[seq].busy = true;
        self.holdings[seq].promised = prompt.len() + more;
        while self.used() > self.capacity {
            let Some(idle) = self.idlest(1..self.holdings.len()) else {
                self.end(seq);
                return Err(Full);
            };
            self.clear(kv, idle);
        }
        Ok(own.max(prefix))
    }

    /// Cuts out what `prompt` no longer has in the middle of what the sequence holds.
    fn close_gap(&mut self, kv: &mut impl Kv, seq: usize, prompt: &[Token]) {
        let holding = &self.holdings[seq];
        let kept = common(&holding.tokens, prompt);
        let (held, wanted) = (&holding.tokens[kept..], &prompt[kept..]);
        // Cells of the shared prefix belong to others too.
        if kept < holding.shared || wanted.len() < WORTH_MOVING {
            return;
        }
        let found = held.windows(WORTH_MOVING).position(|run| wanted.starts_with(run));
        if let Some(gap) = found.filter(|&gap| gap > 0)
            && kv.cut(seq_id(seq), kept..kept + gap)
        {
            self.holdings[seq].tokens.drain(kept..kept + gap);
        }
    }

    /// The cache now holds these tokens too.
    pub(crate) fn extend(&mut self, seq: usize, tokens: &[Token]) {
        self.holdings[seq].tokens.extend_from_slice(tokens);
    }

    /// The request on this sequence is over; what it holds stays for the next one.
    pub(crate) fn end(&mut self, seq: usize) {
        self.holdings[seq].promised = 0;
        self.holdings[seq].busy = false;
    }

    /// Positions the sequence holds.
    pub(crate) fn len(&self, seq: usize) -> usize {
        self.holdings[seq].tokens.len()
    }

    /// Makes the cache agree with the book again after a failed decode.
    pub(crate) fn restore(&mut self, kv: &mut impl Kv, seq: usize) {
        kv.forget(seq_id(seq), self.holdings[seq].tokens.len());
    }

    /// Drops what an idle call holds, if there is one.
    pub(crate) fn evict(&mut self, kv: &mut impl Kv) -> bool {
        let idle = (1..self.holdings.len()).filter(|&s| !self.holdings[s].tokens.is_empty());
        let idlest = idle
            .filter(|&s| self.holdings[s].promised == 0)
            .min_by_key(|&s| self.holdings[s].used);
        idlest.map(|seq| self.clear(kv, seq)).is_some()
    }

    /// The call has ended.
    pub(crate) fn release(&mut self, kv: &mut impl Kv, call: u64) {
        if let Some(seq) = (1..self.holdings.len()).find(|&s| self.holdings[s].call == Some(call)) {
            self.clear(kv, seq);
        }
    }

    fn idlest(&self, among: Range<usize>) -> Option<usize> {
        among
            .filter(|&s| !self.holdings[s].busy && self.holdings[s].call.is_some())
            .min_by_key(|&s| self.holdings[s].used)
    }

    fn clear(&mut self, kv: &mut impl Kv, seq: usize) {
        self.trim(kv, seq, 0);
        self.holdings[seq] = Holding::default();
    }

    fn trim(&mut self, kv: &mut impl Kv, seq: usize, len: usize) {
        kv.forget(seq_id(seq), len);
        self.holdings[seq].tokens.truncate(len);
        let shared = if seq == PREFIX {
            1..self.holdings.len()
        } else {
            seq..seq + 1
        };
        for holding in &mut self.holdings[shared] {
            holding.shared = holding.shared.min(len);
        }
    }

    /// Cells in use or promised. Too high, never too low, when calls still share cells of a replaced prefix.
    fn used(&self) -> usize {
        self.holdings.iter().map(Holding::own).sum()
    }
}

/// The sequence's name for llama.cpp.
pub(crate) fn seq_id(seq: usize) -> Seq {
    Seq::try_from(seq).unwrap_or(0)
}

fn common(a: &[Token], b: &[Token]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Remembers what each sequence holds, by length.
    #[derive(Default)]
    struct Fake(std::collections::HashMap<Seq, usize>);

    impl Kv for Fake {
        fn forget(&mut self, seq: Seq, from: usize) {
            let len = self.0.entry(seq).or_default();
            *len = (*len).min(from);
        }
        fn share(&mut self, from: Seq, to: Seq, len: usize) {
            assert_eq!(self.0.get(&to).copied().unwrap_or(0), 0, "target is empty");
            assert!(self.0[&from] >= len);
            self.0.insert(to, len);
        }
        fn cut(&mut self, seq: Seq, range: Range<usize>) -> bool {
            let len = self.0.get_mut(&seq).expect("a sequence");
            assert!(range.end <= *len);
            *len -= range.len();
            true
        }
    }

    struct Bench {
        cache: Cache,
        kv: Fake,
    }

    impl Bench {
        fn new(calls: usize, capacity: usize) -> Self {
            Self {
                cache: Cache::new(calls, capacity),
                kv: Fake::default(),
            }
        }
        fn run(&mut self, seq: usize, prompt: &[Token], more: usize, fresh: usize) -> Result<usize, Full> {
            let cached = self.cache.begin(&mut self.kv, seq, prompt, more, fresh)?;
            self.cache.extend(seq, &prompt[cached..]);
            self.kv.0.insert(seq_id(seq), prompt.len());
            self.cache.end(seq);
            Ok(cached)
        }
        fn call(&mut self, call: u64, prompt: &[Token], more: usize) -> Result<usize, Full> {
            let seq = self.cache.claim(&mut self.kv, call)?;
            self.run(seq, prompt, more, 1)
        }
    }

    #[test]
    fn prefix_and_history_are_reused() {
        let mut b = Bench::new(2, 100);
        assert_eq!(b.run(PREFIX, &[1, 2, 3], 0, 0), Ok(0));
        assert_eq!(b.call(7, &[1, 2, 3, 10, 11], 5), Ok(3), "the prefix");
        assert_eq!(b.call(7, &[1, 2, 3, 10, 11, 12], 5), Ok(5), "its own history");
        assert_eq!(
            b.call(7, &[1, 2, 3, 10, 11, 12], 5),
            Ok(5),
            "one token is decoded again for its logits"
        );
        assert_eq!(b.call(7, &[1, 2, 3, 20], 5), Ok(3), "history changed");
        assert_eq!(b.call(8, &[1, 2, 9], 5), Ok(2), "part of the prefix");
        assert_eq!(b.cache.used(), 3 + 1 + 1);
    }

    #[test]
    fn what_followed_a_forgotten_exchange_is_moved_up() {
        let mut b = Bench::new(2, 400);
        let prefix: Vec<Token> = (1..=10).collect();
        let (old, kept): (Vec<Token>, Vec<Token>) = ((100..140).collect(), (200..240).collect());
        b.run(PREFIX, &prefix, 0, 0).unwrap();
        b.call(7, &[&prefix[..], &old, &kept].concat(), 0).unwrap();
        assert_eq!(b.call(7, &[&prefix[..], &kept, &[300]].concat(), 0), Ok(50));
        assert_eq!(b.cache.used(), 10 + 41);
        // Too little in common behind the gap.
        assert_eq!(b.call(7, &[&prefix[..], &kept[20..]].concat(), 0), Ok(10));
        // A gap that begins within the shared prefix stays one.
        b.call(8, &[&prefix[..], &old, &kept].concat(), 0).unwrap();
        assert_eq!(b.call(8, &[&prefix[..5], &kept].concat(), 0), Ok(5));
    }

    #[test]
    fn a_new_prefix_keeps_what_is_common() {
        let mut b = Bench::new(2, 100);
        b.run(PREFIX, &[1, 2, 3, 4], 0, 0).unwrap();
        b.call(7, &[1, 2, 3, 4, 10], 0).unwrap();
        assert_eq!(b.run(PREFIX, &[1, 2, 5, 6], 0, 0), Ok(2));
        assert_eq!(b.call(7, &[1, 2, 5, 6, 10], 0), Ok(4), "from the new prefix");
    }

    #[test]
    fn the_idlest_call_makes_room() {
        let mut b = Bench::new(2, 20);
        b.call(1, &[1, 1, 1, 1, 1, 1], 0).unwrap();
        b.call(2, &[2, 2, 2, 2, 2, 2], 0).unwrap();
        b.call(1, &[1, 1, 1, 1, 1, 1, 1], 0).unwrap();
        assert_eq!(b.call(3, &[3], 0), Ok(0), "takes the sequence of call 2");
        assert_eq!(
            b.call(1, &[1, 1, 1, 1, 1, 1, 1, 1], 12),
            Ok(7),
            "call 3 makes room"
        );
        assert_eq!(b.call(3, &[3, 3], 0), Ok(0));
        assert_eq!(b.call(1, &[1; 8], 13), Err(Full));
    }

    #[test]
    fn busy_calls_are_never_evicted() {
        let mut b = Bench::new(1, 20);
        let seq = b.cache.claim(&mut b.kv, 1).unwrap();
        assert_eq!(b.cache.claim(&mut b.kv, 2), Err(Full), "claimed, not begun");
        b.cache.begin(&mut b.kv, seq, &[1, 2], 10, 1).unwrap();
        assert_eq!(b.cache.claim(&mut b.kv, 2), Err(Full));
        b.cache.end(seq);
        assert_eq!(b.cache.claim(&mut b.kv, 2), Ok(seq));
        b.cache.release(&mut b.kv, 2);
        assert_eq!(b.cache.used(), 0);
    }
}
