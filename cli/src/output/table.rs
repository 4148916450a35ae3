//! Lists: a table for people, JSON for programs.

use std::io::{self, Write as _};

use comfy_table::{Table, presets::NOTHING};
use serde::Serialize;

use crate::failure::Failure;

/// Something that can be listed.
pub(crate) trait Listed: Serialize {
    /// The columns' names.
    const COLUMNS: &'static [&'static str];
    /// One row.
    fn row(&self) -> Vec<String>;
}

/// Prints `items` as a table, or as an array of JSON objects.
///
/// # Errors
/// When nobody reads.
pub(crate) fn list<T: Listed>(items: &[T], json: bool) -> Result<(), Failure> {
    if json {
        print_json(items)
    } else {
        print(&table(items))
    }
}

/// Prints one value as JSON.
///
/// # Errors
/// When nobody reads.
pub(crate) fn print_json<T: Serialize + ?Sized>(value: &T) -> Result<(), Failure> {
    print(&serde_json::to_string_pretty(value).map_err(Failure::fleetpool)?)
}

/// Prints `text` and a newline to stdout.
///
/// # Errors
/// When nobody reads: then there is nothing to say either.
pub(crate) fn print(text: &str) -> Result<(), Failure> {
    print_bytes(text.as_bytes())
}

/// Prints bytes and a newline to stdout.
///
/// # Errors
/// When nobody reads.
pub(crate) fn print_bytes(line: &[u8]) -> Result<(), Failure> {
    let mut stdout = io::stdout().lock();
    let written = stdout
        .write_all(line)
        .and_then(|()| stdout.write_all(b"\n"))
        .and_then(|()| stdout.flush());
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Failure::broken_pipe(),
        _ => Failure::fleetpool(format!("cannot write to stdout: {error}")),
    })
}

fn table<T: Listed>(items: &[T]) -> String {
    let mut table = Table::new();
    table
        .load_style(NOTHING)
        .set_header(T::COLUMNS.iter().copied());
    for item in items {
        table.add_row(item.row());
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let lines: Vec<_> = table
        .lines()
        .map(|line| line.trim_end().to_owned())
        .collect();
    lines.join("\n")
}

/// `k=v,k=v`.
pub(crate) fn labels(labels: &[(String, String)]) -> String {
    let labels: Vec<_> = labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(",")
}

/// A duration in at most two units.
pub(crate) fn age(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds}s"),
        (0, 0, _) => format!("{minutes}m{}s", seconds % 60),
        (0, ..) => format!("{hours}h{minutes}m"),
        _ => format!("{days}d{hours}h"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Item(&'static str, u32);

    impl Listed for Item {
        const COLUMNS: &'static [&'static str] = &["name", "slots"];
        fn row(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_string()]
        }
    }

    #[test]
    fn columns_are_aligned_and_lines_end_with_their_text() {
        insta::assert_snapshot!(table(&[Item("web1", 4), Item("a-longer-name", 16)]), @r"
        name           slots
        web1           4
        a-longer-name  16
        ");
        insta::assert_snapshot!(table::<Item>(&[]), @"name  slots");
    }

    #[test]
    fn ages_have_two_units() {
        let check = |seconds, expect: &str| assert_eq!(age(seconds), expect);
        check(5, "5s");
        check(65, "1m5s");
        check(3660, "1h1m");
        check(90_000, "1d1h");
    }
}
