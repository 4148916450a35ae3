//! The table that `make bench` prints.

use crate::measure::Turns;

/// A line of the table.
#[derive(Debug)]
pub(crate) struct Line {
    case: String,
    ours: String,
    peer: String,
    ratio: String,
    target: String,
    verdict: &'static str,
    cpu: String,
}

/// What must hold.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Target {
    /// Ours divided by the peer's figure is at least this.
    RatioAtLeast(f64),
    /// Ours divided by the peer's figure is at most this.
    RatioAtMost(f64),
    /// Ours is at least this.
    AtLeast(f64),
    /// Ours is at most this.
    AtMost(f64),
    /// Nothing: the line is there to be read.
    None,
}

impl Target {
    fn holds(self, ours: f64, peer: f64) -> bool {
        match self {
            Self::RatioAtLeast(bound) => ours / peer >= bound,
            Self::RatioAtMost(bound) => ours / peer <= bound,
            Self::AtLeast(bound) => ours >= bound,
            Self::AtMost(bound) => ours <= bound,
            Self::None => true,
        }
    }

    fn text(self) -> String {
        match self {
            Self::RatioAtLeast(bound) => format!(">= {bound:.2} x"),
            Self::RatioAtMost(bound) => format!("<= {bound:.2} x"),
            Self::AtLeast(bound) => format!(">= {}", short(bound)),
            Self::AtMost(bound) => format!("<= {}", short(bound)),
            Self::None => String::new(),
        }
    }

    fn verdict(self, ours: f64, peer: f64) -> &'static str {
        match self {
            Self::None => "",
            _ if self.holds(ours, peer) => "ok",
            _ => "MISSED",
        }
    }
}

impl Line {
    /// Our figure beside a peer's.
    pub(crate) fn against(
        case: &str,
        unit: &str,
        ours: &Turns,
        name: &str,
        peer: &Turns,
        target: Target,
    ) -> Self {
        let (our, their) = (ours.median(), peer.median());
        Self {
            case: format!("{case} [{unit}]"),
            ours: with_spread(ours),
            peer: format!("{name} {}", with_spread(peer)),
            ratio: format!("{:.2}", our / their),
            target: target.text(),
            verdict: target.verdict(our, their),
            cpu: format!("{:.2} / {:.2}", ours.cpu_s(), peer.cpu_s()),
        }
    }

    /// Our figure beside what was asked of it.
    pub(crate) fn alone(case: &str, unit: &str, ours: &Turns, target: Target) -> Self {
        Self {
            case: format!("{case} [{unit}]"),
            ours: with_spread(ours),
            peer: String::new(),
            ratio: String::new(),
            target: target.text(),
            verdict: target.verdict(ours.median(), f64::NAN),
            cpu: format!("{:.2}", ours.cpu_s()),
        }
    }

    /// Our processor time beside a peer's.
    pub(crate) fn cpu(case: &str, ours: &Turns, name: &str, peer: &Turns, target: Target) -> Self {
        let (our, their) = (ours.cpu_s(), peer.cpu_s());
        Self {
            case: format!("{case} [CPU s]"),
            ours: format!("{our:.2}"),
            peer: format!("{name} {their:.2}"),
            ratio: format!("{:.2}", our / their),
            target: target.text(),
            verdict: target.verdict(our, their),
            cpu: String::new(),
        }
    }

    /// A case that could not be run, and why.
    pub(crate) fn left_out(case: &str, reason: &str) -> Self {
        Self {
            case: case.to_owned(),
            ours: format!("not measured: {reason}"),
            peer: String::new(),
            ratio: String::new(),
            target: String::new(),
            verdict: "",
            cpu: String::new(),
        }
    }

    fn cells(&self) -> [&str; 7] {
        [
            &self.case,
            &self.ours,
            &self.peer,
            &self.ratio,
            &self.target,
            self.verdict,
            &self.cpu,
        ]
    }
}

const HEAD: [&str; 7] = [
    "case",
    "ours",
    "peer",
    "ratio",
    "target",
    "",
    "CPU s ours / peer",
];

/// The lines under a head, in columns. Reads as Markdown too.
pub(crate) fn render(lines: &[Line]) -> String {
    let rows: Vec<[&str; 7]> = lines.iter().map(Line::cells).collect();
    let width = |column: usize| {
        rows.iter()
            .chain([&HEAD])
            .map(|row| row[column].chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: [usize; 7] = std::array::from_fn(width);
    let rule = widths.map(|width| "-".repeat(width));
    let rule: [&str; 7] = std::array::from_fn(|column| rule[column].as_str());
    let all = [HEAD, rule].into_iter().chain(rows.iter().copied());
    all.map(|row| render_row(&row, &widths)).collect()
}

fn render_row(row: &[&str; 7], widths: &[usize; 7]) -> String {
    let cells: Vec<String> = row
        .iter()
        .zip(widths)
        .map(|(cell, width)| format!("{cell:width$}"))
        .collect();
    format!("| {} |\n", cells.join(" | "))
}

fn with_spread(turns: &Turns) -> String {
    let (low, high) = turns.spread();
    format!("{} ({}-{})", short(turns.median()), short(low), short(high))
}

/// Three digits that matter, thousands apart.
fn short(number: f64) -> String {
    let magnitude = number.abs();
    if magnitude >= 1e6 {
        format!("{:.2} M", number / 1e6)
    } else if magnitude >= 1e4 {
        format!("{:.1} k", number / 1e3)
    } else if magnitude >= 100.0 {
        format!("{number:.0}")
    } else if magnitude >= 10.0 {
        format!("{number:.1}")
    } else {
        format!("{number:.2}")
    }
}
