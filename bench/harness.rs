//! What every figure has: a value, a baseline measured in the same run, a goal; and how both are measured.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// What a figure must come to.
#[derive(Clone, Copy)]
pub enum Goal {
    /// The value over the baseline, at most.
    RatioAtMost(f64),
    /// The value over the baseline, at least.
    RatioAtLeast(f64),
    /// The value itself, at most.
    AtMost(f64),
    /// The value itself, at least.
    AtLeast(f64),
}

/// One measured figure.
pub struct Figure {
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// What it is measured against, in the same run and unit.
    pub baseline: Option<(String, f64)>,
    pub goal: Goal,
    /// How far rounds were apart, and anything that a reader must know.
    pub note: String,
}

impl Figure {
    /// A figure with a goal of its own.
    pub fn absolute(name: &str, value: f64, unit: &'static str, goal: Goal) -> Figure {
        Figure { name: name.to_owned(), value, unit, baseline: None, goal, note: String::new() }
    }

    /// A figure beside its baseline.
    pub fn beside(name: &str, unit: &'static str, pair: &Pair, baseline: &str, goal: Goal) -> Figure {
        Figure {
            name: name.to_owned(),
            value: pair.value,
            unit,
            baseline: Some((baseline.to_owned(), pair.baseline)),
            goal,
            note: pair.note(),
        }
    }

    /// With something that a reader must know.
    pub fn noted(mut self, note: &str) -> Figure {
        if !self.note.is_empty() {
            self.note.push_str("; ");
        }
        self.note.push_str(note);
        self
    }

    fn ratio(&self) -> Option<f64> {
        self.baseline.as_ref().map(|(_, baseline)| self.value / baseline)
    }

    pub fn met(&self) -> bool {
        let ratio = self.ratio().unwrap_or(f64::NAN);
        match self.goal {
            Goal::RatioAtMost(limit) => ratio <= limit,
            Goal::RatioAtLeast(limit) => ratio >= limit,
            Goal::AtMost(limit) => self.value <= limit,
            Goal::AtLeast(limit) => self.value >= limit,
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::RatioAtMost(limit) => format!("≤ {limit} ×"),
            Goal::RatioAtLeast(limit) => format!("≥ {limit} ×"),
            Goal::AtMost(limit) => format!("≤ {limit} {}", self.unit),
            Goal::AtLeast(limit) => format!("≥ {limit} {}", self.unit),
        }
    }

    fn json(&self) -> Value {
        json!({
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "baselineName": self.baseline.as_ref().map(|(name, _)| name),
            "baseline": self.baseline.as_ref().map(|(_, value)| value),
            "ratio": self.ratio(),
            "goal": self.goal_text(),
            "met": self.met(),
            "note": self.note,
        })
    }

    fn row(&self) -> [String; 6] {
        let (baseline, ratio) = match &self.baseline {
            Some((name, value)) => (format!("{name}: {}", number(*value)), format!("{} ×", number(self.value / value))),
            None => (String::new(), String::new()),
        };
        let met = if self.met() { "yes" } else { "no" }.to_owned();
        [self.name.clone(), format!("{} {}", number(self.value), self.unit), baseline, ratio, self.goal_text(), met]
    }
}

fn number(value: f64) -> String {
    match value.abs() {
        v if v >= 1_000.0 => {
            let whole = format!("{v:.0}");
            let mut out = String::new();
            for (n, digit) in whole.chars().enumerate() {
                if n > 0 && (whole.len() - n).is_multiple_of(3) {
                    out.push(',');
                }
                out.push(digit);
            }
            out
        }
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 0.01 => format!("{value:.2}"),
        _ => format!("{value:.4}"),
    }
}

/// The figures as a Markdown table, which is what the README shows.
pub fn table(figures: &[Figure]) -> String {
    let head = ["figure", "measured", "baseline in the same run", "ratio", "goal", "met"].map(str::to_owned);
    let rows: Vec<[String; 6]> = std::iter::once(head).chain(figures.iter().map(Figure::row)).collect();
    let width: Vec<usize> = (0..6).map(|c| rows.iter().map(|r| r[c].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for (n, row) in rows.iter().enumerate() {
        for (cell, width) in row.iter().zip(&width) {
            let _ = write!(out, "| {cell}{} ", " ".repeat(width - cell.chars().count()));
        }
        out.push_str("|\n");
        if n == 0 {
            for width in &width {
                let _ = write!(out, "|{}", "-".repeat(width + 2));
            }
            out.push_str("|\n");
        }
    }
    out
}

/// The machine, as the table needs it.
pub fn machine() -> String {
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|(_, v)| v.to_owned()));
    let memory = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib: f64 = memory
        .lines()
        .find_map(|l| l.strip_prefix("MemTotal:")?.split_whitespace().next()?.parse().ok())
        .unwrap_or_default();
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    format!(
        "{} cores of {}, {:.0} GiB, Linux {}",
        std::thread::available_parallelism().map_or(0, usize::from),
        model.as_deref().unwrap_or("an unnamed processor"),
        kib / 1024.0 / 1024.0,
        kernel.trim(),
    )
}

/// Where results go.
pub fn results() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| PathBuf::from("target"), PathBuf::from).join("bench.json")
}

/// The results as JSON.
pub fn document(figures: &[Figure], load_before: &str) -> Value {
    json!({
        "machine": machine(),
        "loadBefore": load_before,
        "at": jiff::Timestamp::now().to_string(),
        "figures": figures.iter().map(Figure::json).collect::<Vec<_>>(),
    })
}

/// A value and its baseline over several rounds, taken in turns, so that what slows the machine slows both.
#[derive(Default)]
pub struct Pair {
    pub value: f64,
    pub baseline: f64,
    rounds: Vec<f64>,
}

impl Pair {
    /// The round whose ratio is the median of all.
    pub fn of(rounds: &[(f64, f64)]) -> Pair {
        let mut sorted: Vec<(f64, f64)> = rounds.to_vec();
        sorted.sort_by(|a, b| (a.0 / a.1).total_cmp(&(b.0 / b.1)));
        let (value, baseline) = sorted[sorted.len() / 2];
        Pair { value, baseline, rounds: sorted.iter().map(|(v, b)| v / b).collect() }
    }

    /// In another unit.
    pub fn scaled(&self, factor: f64) -> Pair {
        Pair { value: self.value * factor, baseline: self.baseline * factor, rounds: self.rounds.clone() }
    }

    fn note(&self) -> String {
        match self.rounds.as_slice() {
            [first, .., last] => {
                format!("{} rounds, ratios {} to {}", self.rounds.len(), number(*first), number(*last))
            }
            _ => String::new(),
        }
    }
}

/// Seconds that one call of each takes, in turns: `rounds` rounds of about 10 ms for each.
pub fn in_turns(rounds: usize, a: &mut dyn FnMut(), b: &mut dyn FnMut()) -> Pair {
    let (calls_a, calls_b) = (calls(a), calls(b));
    let measured: Vec<(f64, f64)> = (0..rounds).map(|_| (timed(a, calls_a), timed(b, calls_b))).collect();
    Pair::of(&measured)
}

fn calls(f: &mut dyn FnMut()) -> u32 {
    const ROUND: Duration = Duration::from_millis(10);
    let begun = Instant::now();
    let mut calls = 0;
    while begun.elapsed() < ROUND {
        f();
        calls += 1;
    }
    calls
}

fn timed(f: &mut dyn FnMut(), calls: u32) -> f64 {
    let begun = Instant::now();
    for _ in 0..calls {
        f();
    }
    begun.elapsed().as_secs_f64() / f64::from(calls)
}

/// The value in the middle.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}
