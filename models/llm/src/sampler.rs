//! Picks the next token of one generation.
//!
//! With a grammar, the best token is tried first and only when it is not allowed are all of them filtered: asking the
//! grammar about every token every time costs a third of the speed.

use std::collections::VecDeque;

use crate::llama::{Candidate, Grammar, Token, candidate};

/// Tokens of this reply that are made less likely to come again. The prompt's are not: facts must be quotable.
const WINDOW: usize = 64;
/// Light: small models repeat themselves, but a reply needs its commas and names.
const PENALTY: f32 = 1.1;
/// With a temperature: choose among this many.
const TOP_K: usize = 40;

pub(crate) struct Sampler {
    /// 0 = greedy.
    temperature: f32,
    random: u64,
    grammar: Option<Grammar>,
    recent: VecDeque<Token>,
}

impl Sampler {
    pub(crate) fn new(temperature: f32, seed: u32, grammar: Option<Grammar>) -> Self {
        Self {
            temperature,
            random: u64::from(seed),
            grammar,
            recent: VecDeque::with_capacity(WINDOW),
        }
    }

    /// The next token; the logits are scratch. `None` when the grammar leaves nothing.
    pub(crate) fn sample(&mut self, logits: &mut [f32]) -> Option<Token> {
        if self.grammar.is_none() {
            penalize(logits, &self.recent);
        }
        let token = if self.temperature <= 0.0 {
            self.greedy(logits)?
        } else {
            self.random(logits)?
        };
        if let Some(grammar) = &mut self.grammar
            && !grammar.accept(token)
        {
            return None;
        }
        if self.recent.len() == WINDOW {
            self.recent.pop_front();
        }
        self.recent.push_back(token);
        Some(token)
    }

    fn greedy(&mut self, logits: &[f32]) -> Option<Token> {
        let best = argmax(logits)?;
        let Some(grammar) = &mut self.grammar else {
            return Some(best);
        };
        if grammar.allows(best) {
            return Some(best);
        }
        let mut all = candidates(logits);
        grammar.filter(&mut all);
        all.iter()
            .filter(|c| c.logit.is_finite())
            .max_by(|a, b| a.logit.total_cmp(&b.logit))
            .map(|c| c.id)
    }

    fn random(&mut self, logits: &[f32]) -> Option<Token> {
        let mut all = candidates(logits);
        if let Some(grammar) = &mut self.grammar {
            grammar.filter(&mut all);
        }
        all.retain(|c| c.logit.is_finite());
        if all.len() > TOP_K {
            all.select_nth_unstable_by(TOP_K - 1, |a, b| b.logit.total_cmp(&a.logit));
            all.truncate(TOP_K);
        }
        all.sort_unstable_by(|a, b| b.logit.total_cmp(&a.logit).then(a.id.cmp(&b.id)));
        let most = all.first()?.logit;
        let weights: Vec<f32> = all
            .iter()
            .map(|c| ((c.logit - most) / self.temperature).exp())
            .collect();
        let mut left = self.uniform() * weights.iter().sum::<f32>();
        for (c, weight) in all.iter().zip(&weights) {
            left -= weight;
            if left <= 0.0 {
                return Some(c.id);
            }
        }
        all.last().map(|c| c.id)
    }

    /// 0…1, by `SplitMix64`.
    fn uniform(&mut self) -> f32 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.random;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((z ^ (z >> 31)) >> 40) as f32 / (1u64 << 24) as f32
    }
}

fn penalize(logits: &mut [f32], recent: &VecDeque<Token>) {
    for (i, token) in recent.iter().enumerate() {
        let first = !recent.iter().take(i).any(|t| t == token);
        if let Some(logit) = usize::try_from(*token).ok().and_then(|t| logits.get_mut(t))
            && first
        {
            *logit = if *logit > 0.0 {
                *logit / PENALTY
            } else {
                *logit * PENALTY
            };
        }
    }
}

fn argmax(logits: &[f32]) -> Option<Token> {
    let mut best = (0, f32::NEG_INFINITY);
    for (i, logit) in logits.iter().enumerate() {
        if *logit > best.1 {
            best = (i, *logit);
        }
    }
    if best.1 == f32::NEG_INFINITY {
        None
    } else {
        Token::try_from(best.0).ok()
    }
}

fn candidates(logits: &[f32]) -> Vec<Candidate> {
    (0..)
        .zip(logits)
        .map(|(id, logit)| candidate(id, *logit))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn greedy_takes_the_best_and_tires_of_it() {
        let mut sampler = Sampler::new(0.0, 0, None);
        let mut picks = Vec::new();
        for _ in 0..3 {
            picks.push(sampler.sample(&mut [1.0, 10.0, 9.5, f32::NAN]).unwrap());
        }
        assert_eq!(picks, [1, 2, 1]);
        assert_eq!(
            Sampler::new(0.0, 0, None).sample(&mut [f32::NAN, f32::NEG_INFINITY]),
            None
        );
    }

    #[test]
    fn the_same_seed_gives_the_same_text() {
        let pick = |seed| {
            let mut sampler = Sampler::new(1.0, seed, None);
            (0..20)
                .map(|_| sampler.sample(&mut [1.0; 100]).unwrap())
                .collect::<Vec<_>>()
        };
        assert_eq!(pick(1), pick(1));
        assert_ne!(pick(1), pick(2));
    }

    #[test]
    fn unlikely_tokens_stay_unlikely() {
        let mut sampler = Sampler::new(0.5, 3, None);
        let mut logits = [0.0; 50];
        logits[7] = 20.0;
        assert!((0..50).all(|_| sampler.sample(&mut logits.clone()) == Some(7)));
    }
}
