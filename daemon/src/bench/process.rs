//! Process: what the daemon and its workers cost, from `/proc`.
//!
//! A sampler thread reads the tree of processes twice a second; a worker that has ended keeps the cost it had at the
//! last look. Source: proc(5).

use std::{
    collections::HashMap,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use serde::Serialize;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(500);
/// Clock ticks per second in `/proc`; fixed by the kernel's interface on every architecture of ours.
const TICKS_PER_S: f64 = 100.0;
/// Size of a page [bytes], where `/proc` counts in pages.
const PAGE: u64 = 4096;

/// One process, as `/proc/PID/stat` tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stat {
    parent: u32,
    name: String,
    /// User and system time [clock ticks].
    ticks: u64,
    resident: u64,
}

/// Cost so far.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Cost {
    /// User and system time of all processes [s].
    pub cpu_s: f64,
    /// Largest sum of resident memory seen at one moment [MiB].
    pub peak_rss_mib: f64,
    /// User and system time by program [s].
    pub cpu_s_by_program: std::collections::BTreeMap<String, f64>,
    /// Largest resident memory by program [MiB].
    pub peak_rss_mib_by_program: std::collections::BTreeMap<String, f64>,
    /// Cores that other programs of this machine kept busy on average, the bench itself left out: with more than a
    /// little of it, times say more about them than about the daemon.
    pub others_cores: f64,
}

/// Watches a process and its descendants.
#[derive(Debug)]
pub struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Cost>,
}

impl Watch {
    /// Begins to watch; times count from here.
    #[must_use]
    pub fn start(root: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let told = stop.clone();
        let thread = thread::spawn(move || {
            let mut ledger = Ledger::default();
            ledger.look(root);
            ledger.begin();
            let (begun, busy, own) = (Instant::now(), busy_s(), own_s());
            while !told.load(Ordering::Relaxed) {
                thread::sleep(EVERY);
                ledger.look(root);
            }
            let mut cost = ledger.cost();
            let others = busy_s() - busy - (own_s() - own) - cost.cpu_s;
            cost.others_cores = (others / begun.elapsed().as_secs_f64()).max(0.0);
            cost
        });
        Self { stop, thread }
    }

    /// Ends, with the cost since the start.
    #[must_use]
    pub fn finish(self) -> Cost {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap_or_default()
    }
}

#[derive(Debug, Default)]
struct Ledger {
    /// By pid: name, ticks at the beginning, ticks at the last look, largest resident memory.
    seen: HashMap<u32, (String, u64, u64, u64)>,
    peak: u64,
}

impl Ledger {
    fn look(&mut self, root: u32) {
        self.take(&tree(root, &all()));
    }

    fn take(&mut self, tree: &[(u32, Stat)]) {
        self.peak = self.peak.max(tree.iter().map(|(_, stat)| stat.resident).sum());
        for (pid, stat) in tree {
            let entry = self.seen.entry(*pid).or_insert((stat.name.clone(), 0, 0, 0));
            entry.0.clone_from(&stat.name);
            entry.2 = stat.ticks;
            entry.3 = entry.3.max(stat.resident);
        }
    }

    /// What was spent until now does not count.
    fn begin(&mut self) {
        for entry in self.seen.values_mut() {
            entry.1 = entry.2;
        }
    }

    fn cost(&self) -> Cost {
        let mut cost = Cost {
            peak_rss_mib: mib(self.peak),
            ..Cost::default()
        };
        for (name, begin, end, resident) in self.seen.values() {
            let cpu = end.saturating_sub(*begin) as f64 / TICKS_PER_S;
            cost.cpu_s += cpu;
            *cost.cpu_s_by_program.entry(name.clone()).or_default() += cpu;
            let peak = cost.peak_rss_mib_by_program.entry(name.clone()).or_default();
            *peak = peak.max(mib(*resident));
        }
        cost
    }
}

fn mib(bytes: u64) -> f64 {
    (bytes as f64 / (1024.0 * 1024.0) * 10.0).round() / 10.0
}

fn all() -> HashMap<u32, Stat> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    pids.filter_map(|pid| {
        Some((
            pid,
            parse(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?,
        ))
    })
    .collect()
}

/// `root` and all its descendants.
fn tree(root: u32, all: &HashMap<u32, Stat>) -> Vec<(u32, Stat)> {
    let mut found: Vec<u32> = vec![root];
    let mut at = 0;
    while let Some(parent) = found.get(at).copied() {
        found.extend(
            all.iter()
                .filter(|(pid, stat)| stat.parent == parent && **pid != parent)
                .map(|(pid, _)| *pid),
        );
        at += 1;
    }
    found
        .iter()
        .filter_map(|pid| Some((*pid, all.get(pid)?.clone())))
        .collect()
}

fn parse(stat: &str) -> Option<Stat> {
    // The name is in parentheses and may hold any character.
    let (head, rest) = stat.rsplit_once(')')?;
    let name = head.split_once('(')?.1.to_owned();
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Fields from the third on: state, ppid, …, utime (14th), stime (15th), …, rss (24th).
    let number = |at: usize| fields.get(at - 3)?.parse::<u64>().ok();
    Some(Stat {
        parent: number(4)? as u32,
        name,
        ticks: number(14)? + number(15)?,
        resident: number(24)? * PAGE,
    })
}

/// What all programs have used since the machine started [s].
fn busy_s() -> f64 {
    let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
    // cpu user nice system idle iowait irq softirq steal …
    let ticks: Vec<u64> = stat
        .lines()
        .next()
        .into_iter()
        .flat_map(str::split_whitespace)
        .flat_map(str::parse)
        .collect();
    let busy = [0, 1, 2, 5, 6]
        .iter()
        .filter_map(|at| ticks.get(*at))
        .sum::<u64>();
    busy as f64 / TICKS_PER_S
}

/// What this process has used [s].
fn own_s() -> f64 {
    let stat = fs::read_to_string("/proc/self/stat")
        .ok()
        .and_then(|stat| parse(&stat));
    stat.map_or(0.0, |stat| stat.ticks as f64 / TICKS_PER_S)
}

/// The processor's own name.
#[must_use]
pub fn cpu_model() -> String {
    let info = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let line = info
        .lines()
        .find(|line| line.starts_with("model name") || line.starts_with("Model"));
    line.and_then(|line| line.split_once(':'))
        .map_or_else(|| "unknown".to_owned(), |(_, name)| name.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(name: &str, parent: u32, ticks: u64, pages: u64) -> Stat {
        let text = format!(
            "7 ({name}) S {parent} 7 7 0 -1 4194560 1 0 0 0 {ticks} 5 0 0 20 0 3 0 100 1000000 {pages} 18446744073709551615"
        );
        parse(&text).unwrap()
    }

    #[test]
    fn a_tree_is_counted_and_the_dead_keep_their_cost() {
        let mut all = HashMap::from([
            (10, line("attendant", 1, 100, 256)),
            (11, line("attendant) odd", 10, 200, 512)),
            (12, line("other", 1, 900, 900)),
        ]);
        let mut ledger = Ledger::default();
        ledger.take(&tree(10, &all));
        ledger.begin();
        all.insert(10, line("attendant", 1, 150, 256));
        all.insert(11, line("attendant) odd", 10, 300, 256));
        ledger.take(&tree(10, &all));
        all.remove(&11);
        all.insert(13, line("attendant) odd", 10, 45, 256));
        ledger.take(&tree(10, &all));
        let cost = ledger.cost();
        assert!((cost.cpu_s - (0.5 + 1.0 + 0.5)).abs() < 1e-9, "{cost:?}");
        assert_eq!(cost.peak_rss_mib, 3.0);
        assert_eq!(cost.cpu_s_by_program.len(), 2);
    }

    #[test]
    fn this_process_is_seen() {
        let watch = Watch::start(std::process::id());
        let cost = watch.finish();
        assert!(cost.peak_rss_mib > 0.5 && cost.others_cores >= 0.0);
        assert!(busy_s() > 0.0 && own_s() >= 0.0);
        assert_eq!(parse("garbage"), None);
    }
}
