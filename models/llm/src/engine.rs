//! The engine: continuous batching over all calls.
//!
//! ```text
//!            claim, begin            prompt decoded            end token, stop text, max_tokens
//! arrived ───────────────> prefilling ───────────> generating ─────────────────────────────────> Done
//!    └── refused: Failed       └──────── Cancel, deadline, superseded, released ───> Cancelled, Failed
//! ```
//!
//! Each step decodes one batch: one token of every generating job, plus a chunk of prompt of the oldest prefilling
//! jobs (replies before prefills). Between steps it takes requests, so nobody waits longer than a step. What a job has
//! decoded stays in its call's sequence however it ends: only decoded tokens are in the book.

use std::time::{Duration, Instant};

use attendant_models::protocol::{ChatMessage, FailKind, Request, RequestId, Response, Stats};

use crate::cache::{Cache, PREFIX, seq_id};
use crate::chat::{Chat, Ending};
use crate::ending::EndTokens;
use crate::llama::{Batch, Llama, LlamaError, Token};
use crate::pace::{MOST, Pace};
use crate::sampler::Sampler;
use crate::text::{Piece, TextOut};

/// Jobs at once, waiting ones included; more are refused as busy.
const MAX_JOBS: usize = 32;
/// Longest grammar accepted [bytes].
const MAX_GRAMMAR: usize = 64 * 1024;
/// Most stop texts.
const MAX_STOPS: usize = 16;

/// Where answers go.
pub(crate) trait Outbox {
    fn send(&self, response: &Response);
}

/// Room of a batch for this many calls.
pub(crate) fn batch_room(calls: usize) -> u32 {
    MOST + u32::try_from(calls).unwrap_or(0)
}

pub(crate) struct Engine<O> {
    llama: Llama,
    chat: Chat,
    end_tokens: EndTokens,
    cache: Cache,
    batch: Batch,
    pace: Pace,
    jobs: Vec<Job>,
    /// 0 = paused.
    threads: u32,
    out: O,
}

struct Job {
    id: RequestId,
    /// `None` for the prefix.
    call: Option<u64>,
    seq: usize,
    prompt: Vec<Token>,
    work: Work,
    arrived: Instant,
    deadline: Option<Instant>,
    /// Set when its sequence was prepared.
    begun: Option<Instant>,
    /// Why it ended, once it has.
    over: bool,
    stats: Stats,
    compute: Duration,
}

enum Work {
    /// Decode the prompt only.
    Prompt,
    Reply(Box<Reply>),
}

struct Reply {
    sampler: Sampler,
    text: TextOut,
    max_tokens: u32,
    /// Sampled, not decoded yet.
    next: Option<Token>,
    /// Whether the caller's message sounds finished is wanted.
    score_ending: bool,
    /// Index in the prompt of the caller's last word, whose successor tells whether the message sounds finished.
    score_at: Option<usize>,
}

/// One job's part of a batch.
struct Part {
    job: usize,
    tokens: Vec<Token>,
    /// Index of its logits.
    logits: Option<i32>,
    /// Index of the logits behind the caller's last word.
    ending: Option<i32>,
}

impl Job {
    /// Tokens at the end of the prompt whose logits are needed.
    fn fresh(&self) -> usize {
        match &self.work {
            Work::Prompt => 0,
            Work::Reply(reply) => reply.score_at.map_or(1, |at| self.prompt.len() - at),
        }
    }

    fn more(&self) -> usize {
        match &self.work {
            Work::Prompt => 0,
            Work::Reply(reply) => reply.max_tokens as usize,
        }
    }

    fn generating(&self) -> bool {
        matches!(&self.work, Work::Reply(reply) if reply.next.is_some())
    }
}

impl<O: Outbox> Engine<O> {
    pub(crate) fn new(llama: Llama, calls: usize, context: usize, threads: u32, out: O) -> Self {
        let chat = Chat::new(&llama);
        let end_tokens = EndTokens::new(&llama);
        Self {
            llama,
            chat,
            end_tokens,
            cache: Cache::new(calls, context),
            batch: Batch::new(batch_room(calls)),
            pace: Pace::new(),
            jobs: Vec::new(),
            threads,
            out,
        }
    }

    /// Whether [`step`](Self::step) has anything to compute.
    pub(crate) fn has_work(&self) -> bool {
        self.threads > 0 && !self.jobs.is_empty()
    }

    /// When to call [`expire`](Self::expire) next.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.jobs.iter().filter_map(|j| j.deadline).min()
    }

    /// Takes one request; `arrived` is when it was read.
    pub(crate) fn handle(&mut self, request: Request, arrived: Instant) {
        match request {
            Request::SetThreads { threads } => {
                self.threads = threads;
                if let Ok(n @ 1..) = i32::try_from(threads) {
                    self.llama.set_threads(n);
                }
                self.out.send(&Response::ThreadsSet { threads });
            }
            Request::Cancel { id } => {
                if let Some(at) = self.jobs.iter().position(|j| j.id == id) {
                    self.cancel(at);
                }
            }
            Request::Release { call } => {
                while let Some(at) = self.jobs.iter().position(|j| j.call == Some(call)) {
                    self.cancel(at);
                }
                self.cache.release(&mut self.llama, call);
            }
            Request::SetPrefix { id, messages } => {
                while let Some(at) = self.jobs.iter().position(|j| j.seq == PREFIX && j.call.is_none()) {
                    self.cancel(at);
                }
                self.chat.set_prefix(messages);
                self.enter(id, None, &[], Work::Prompt, Ending::Message, arrived, None);
            }
            Request::Prefill { id, call, messages } => {
                // The caller may go on.
                let last_is_caller = messages
                    .last()
                    .is_some_and(|m| m.role == attendant_models::protocol::Role::User);
                let ending = if last_is_caller {
                    Ending::Open
                } else {
                    Ending::Message
                };
                self.enter(id, Some(call), &messages, Work::Prompt, ending, arrived, None);
            }
            Request::Generate {
                id,
                call,
                deadline_ms,
                messages,
                max_tokens,
                temperature,
                seed,
                stop,
                grammar,
                score_ending,
                ..
            } => match self.reply(max_tokens, temperature, seed, stop, grammar) {
                Ok(mut reply) => {
                    reply.score_ending = score_ending;
                    let deadline = arrived + Duration::from_millis(u64::from(deadline_ms));
                    let work = Work::Reply(Box::new(reply));
                    self.enter(
                        id,
                        Some(call),
                        &messages,
                        work,
                        Ending::Reply,
                        arrived,
                        Some(deadline),
                    );
                }
                Err(why) => self.fail(id, FailKind::BadRequest, why),
            },
            Request::Transcribe { id, .. } | Request::Speak { id, .. } => {
                self.fail(
                    id,
                    FailKind::BadRequest,
                    "this worker is a language model".to_owned(),
                );
            }
            // The reader answers them.
            Request::Ping { .. } | Request::Shutdown => {}
        }
    }

    fn reply(
        &self,
        max_tokens: u32,
        temperature: f32,
        seed: u32,
        stop: Vec<String>,
        grammar: Option<String>,
    ) -> Result<Reply, String> {
        if max_tokens == 0 {
            return Err("max_tokens is 0".to_owned());
        }
        if !(0.0..=10.0).contains(&temperature) {
            return Err(format!("temperature {temperature} is not within 0…10"));
        }
        if stop.len() > MAX_STOPS || stop.iter().any(String::is_empty) {
            return Err(format!("stop texts: at most {MAX_STOPS}, none empty"));
        }
        let grammar = match grammar {
            Some(text) if text.len() > MAX_GRAMMAR => {
                return Err(format!("grammar of {} bytes exceeds {MAX_GRAMMAR}", text.len()));
            }
            Some(text) => Some(self.llama.grammar(&text).map_err(|e| e.to_string())?),
            None => None,
        };
        let sampler = Sampler::new(temperature, seed, grammar);
        Ok(Reply {
            sampler,
            text: TextOut::new(stop),
            max_tokens,
            next: None,
            score_ending: false,
            score_at: None,
        })
    }

    #[allow(clippy::too_many_arguments)]
    fn enter(
        &mut self,
        id: RequestId,
        call: Option<u64>,
        messages: &[ChatMessage],
        work: Work,
        ending: Ending,
        arrived: Instant,
        deadline: Option<Instant>,
    ) {
        if let Some(at) = self.jobs.iter().position(|j| call.is_some() && j.call == call) {
            // A call has one reply at a time; the newer request knows more.
            self.cancel(at);
        }
        if self.jobs.len() >= MAX_JOBS {
            return self.fail(id, FailKind::Busy, format!("{MAX_JOBS} requests under way"));
        }
        let Some(prompt) = self.chat.prompt(&self.llama, messages, ending) else {
            return self.fail(
                id,
                FailKind::BadRequest,
                "the chat template refuses these messages".to_owned(),
            );
        };
        let mut work = work;
        if let Work::Reply(reply) = &mut work
            && reply.score_ending
        {
            reply.score_at = self.end_tokens.last_word(&self.llama, &prompt);
        }
        let mut job = Job {
            id,
            call,
            seq: PREFIX,
            prompt,
            work,
            arrived,
            deadline,
            begun: None,
            over: false,
            stats: Stats::default(),
            compute: Duration::ZERO,
        };
        let (needed, most) = (job.prompt.len() + job.more(), self.cache.capacity());
        if needed > most {
            let (prompt, more) = (job.prompt.len(), job.more());
            let why =
                format!("{prompt} tokens of prompt and up to {more} of reply exceed the context of {most}");
            return self.fail(id, FailKind::BadRequest, why);
        }
        if job.prompt.len() <= job.fresh().saturating_sub(1) {
            return self.fail(id, FailKind::BadRequest, "empty prompt".to_owned());
        }
        if let Some(call) = call {
            match self.cache.claim(&mut self.llama, call) {
                Ok(seq) => job.seq = seq,
                Err(_) => return self.fail(id, FailKind::Busy, "no free sequence".to_owned()),
            }
        }
        self.jobs.push(job);
    }

    /// Ends the jobs whose time is up.
    pub(crate) fn expire(&mut self, now: Instant) {
        while let Some(at) = self
            .jobs
            .iter()
            .position(|j| j.deadline.is_some_and(|d| now >= d))
        {
            let job = self.jobs.remove(at);
            self.cache.end(job.seq);
            self.fail(job.id, FailKind::Deadline, "deadline passed".to_owned());
        }
    }

    /// Decodes one batch.
    pub(crate) fn step(&mut self) {
        let started = Instant::now();
        self.begin_jobs(started);
        let parts = self.fill_batch();
        if parts.is_empty() {
            return self.finish_jobs();
        }
        let mut decoded = self.llama.decode(&self.batch);
        while matches!(decoded, Err(LlamaError::Full)) && self.cache.evict(&mut self.llama) {
            decoded = self.llama.decode(&self.batch);
        }
        let took = started.elapsed();
        match decoded {
            Ok(()) => {
                self.pace.on_step(self.batch.len(), took);
                for part in parts {
                    self.take_part(part, took);
                }
            }
            Err(e) => {
                let kind = if matches!(e, LlamaError::Full) {
                    FailKind::Busy
                } else {
                    FailKind::Engine
                };
                for part in &parts {
                    self.jobs[part.job].over = true;
                    self.cache.restore(&mut self.llama, self.jobs[part.job].seq);
                    self.fail(self.jobs[part.job].id, kind, e.to_string());
                }
            }
        }
        self.finish_jobs();
    }

    /// Prepares sequences. While a prefix is decoded, the others wait for it: they all begin with it.
    fn begin_jobs(&mut self, now: Instant) {
        let prefix_under_way = self.jobs.iter().any(|j| j.call.is_none());
        for at in 0..self.jobs.len() {
            let job = &mut self.jobs[at];
            if job.begun.is_some() || (prefix_under_way && job.call.is_some()) {
                continue;
            }
            let (more, fresh) = (job.more(), job.fresh());
            match self
                .cache
                .begin(&mut self.llama, job.seq, &job.prompt, more, fresh)
            {
                Ok(cached) => {
                    job.begun = Some(now);
                    job.stats.cached_tokens = u32::try_from(cached).unwrap_or(u32::MAX);
                    job.stats.queued_ms = millis(now - job.arrived);
                }
                Err(_) => {
                    job.over = true;
                    let id = job.id;
                    self.fail(
                        id,
                        FailKind::Busy,
                        "the context is full of other calls".to_owned(),
                    );
                }
            }
        }
    }

    fn fill_batch(&mut self) -> Vec<Part> {
        self.batch.clear();
        let mut parts = Vec::new();
        for (at, job) in self
            .jobs
            .iter_mut()
            .enumerate()
            .filter(|(_, j)| j.begun.is_some() && !j.over)
        {
            let Work::Reply(reply) = &mut job.work else {
                continue;
            };
            if let Some(token) = reply.next {
                let pos = self.cache.len(job.seq);
                let logits = self.batch.add(token, pos, seq_id(job.seq), true);
                parts.push(Part {
                    job: at,
                    tokens: vec![token],
                    logits,
                    ending: None,
                });
            }
        }
        let mut chunk = self.pace.chunk(!parts.is_empty()).min(self.batch.room());
        let mut order: Vec<usize> = (0..self.jobs.len()).collect();
        order.sort_by_key(|&at| (self.jobs[at].fresh() == 0, self.jobs[at].arrived));
        for at in order {
            let job = &self.jobs[at];
            let done = self.cache.len(job.seq);
            if chunk == 0 || job.begun.is_none() || job.over || job.generating() || done >= job.prompt.len() {
                continue;
            }
            let tokens: Vec<Token> = job.prompt[done..].iter().copied().take(chunk).collect();
            let last = done + tokens.len() == job.prompt.len();
            let score_at = match &job.work {
                Work::Reply(reply) => reply.score_at,
                Work::Prompt => None,
            };
            let (mut logits, mut ending) = (None, None);
            for (i, token) in tokens.iter().enumerate() {
                let wanted = last && i + 1 == tokens.len() && job.fresh() > 0;
                let scored = score_at == Some(done + i);
                let index = self
                    .batch
                    .add(*token, done + i, seq_id(job.seq), wanted || scored);
                logits = logits.or(index.filter(|_| wanted));
                ending = ending.or(index.filter(|_| scored));
            }
            chunk -= tokens.len();
            parts.push(Part {
                job: at,
                tokens,
                logits,
                ending,
            });
        }
        parts
    }

    /// A part was decoded: into the book with it, and on to the next token.
    fn take_part(&mut self, part: Part, took: Duration) {
        let job = &mut self.jobs[part.job];
        self.cache.extend(job.seq, &part.tokens);
        job.compute += took;
        if !job.generating() {
            job.stats.prompt_tokens += u32::try_from(part.tokens.len()).unwrap_or(0);
        }
        if let Some(logits) = part.ending.and_then(|at| self.llama.logits(at)) {
            let probability = self.end_tokens.probability(logits);
            self.out.send(&Response::Ending {
                id: job.id,
                probability,
            });
        }
        let (Some(at), Work::Reply(reply)) = (part.logits, &mut job.work) else {
            return;
        };
        let sampled = self
            .llama
            .logits(at)
            .and_then(|logits| reply.sampler.sample(logits));
        let Some(token) = sampled else {
            job.over = true;
            let id = job.id;
            return self.fail(id, FailKind::Engine, "no token is possible here".to_owned());
        };
        reply.next = None;
        if job.stats.generated_tokens == 0 {
            job.stats.first_token_ms = millis(job.arrived.elapsed());
        }
        let (mut text, mut ended) = (String::new(), true);
        if !self.llama.is_end(token) {
            job.stats.generated_tokens += 1;
            (text, ended) = match reply.text.push(&self.llama.piece(token)) {
                Piece::More(text) => (text, false),
                Piece::Last(text) => (text, true),
            };
            if !ended && job.stats.generated_tokens >= reply.max_tokens {
                job.stats.truncated = true;
                text.push_str(&reply.text.finish());
                ended = true;
            }
        } else {
            text.push_str(&reply.text.finish());
        }
        if !ended {
            reply.next = Some(token);
        }
        let id = job.id;
        if !text.is_empty() {
            self.out.send(&Response::Token { id, text });
        }
        if ended {
            self.done(part.job);
        }
    }

    fn done(&mut self, at: usize) {
        let job = &mut self.jobs[at];
        job.over = true;
        job.stats.compute_ms = millis(job.compute);
        self.out.send(&Response::Done {
            id: job.id,
            stats: job.stats,
        });
    }

    /// Ends prompts that are decoded, and forgets jobs that are over.
    fn finish_jobs(&mut self) {
        for at in 0..self.jobs.len() {
            let job = &self.jobs[at];
            let prompt_only = matches!(job.work, Work::Prompt) && job.begun.is_some() && !job.over;
            if prompt_only && self.cache.len(job.seq) >= job.prompt.len() {
                self.done(at);
            }
        }
        for job in self.jobs.iter().filter(|j| j.over) {
            self.cache.end(job.seq);
        }
        self.jobs.retain(|j| !j.over);
    }

    fn cancel(&mut self, at: usize) {
        let job = self.jobs.remove(at);
        self.cache.end(job.seq);
        self.out.send(&Response::Cancelled { id: job.id });
    }

    fn fail(&self, id: RequestId, kind: FailKind, message: String) {
        self.out.send(&Response::Failed { id, kind, message });
    }
}

fn millis(d: Duration) -> u32 {
    u32::try_from(d.as_millis()).unwrap_or(u32::MAX)
}
