//! One task as data: what `--json` prints, and what `--results FILE.json` and `FILE.csv` hold.

use serde::Serialize;

use crate::run::ended::Ended;

/// The fields, in the order of the manual. Output that is not UTF-8 has its bad bytes replaced by U+FFFD.
#[derive(Debug, Serialize)]
pub(crate) struct Record {
    /// The input's number, counted from 0.
    index: u64,
    /// Where it ran; null when it never did.
    host: Option<String>,
    /// As which process; null when there was none.
    pid: Option<u32>,
    /// The try that counted, from 1 up.
    attempt: u32,
    /// When it began, in seconds since 1970.
    start: Option<f64>,
    /// How long it ran, in seconds.
    runtime: f64,
    /// Its exit status; null when it did not exit.
    exit: Option<i32>,
    /// The signal that ended it.
    signal: Option<i32>,
    /// How it ended, in fleetpool's words.
    outcome: &'static str,
    /// What it printed.
    stdout: String,
    /// What it printed to stderr.
    stderr: String,
    /// The command as a shell's line.
    cmd: String,
}

impl Record {
    /// What is known of `ended` and what it printed.
    pub(crate) fn new(ended: &Ended, stdout: &[u8], stderr: &[u8]) -> Self {
        let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
        Self {
            index: ended.task.seq - 1,
            host: Some(ended.host.clone()).filter(|host| !host.is_empty()),
            pid: Some(ended.pid).filter(|pid| *pid != 0),
            attempt: ended.attempt,
            start: (ended.started_us != 0).then(|| ended.start_s()),
            runtime: ended.runtime_s(),
            exit: ended.exit,
            signal: ended.signal,
            outcome: ended.outcome.name(),
            stdout: text(stdout),
            stderr: text(stderr),
            cmd: ended.text().into_owned(),
        }
    }

    /// One line of JSON, its newline included.
    pub(crate) fn json_line(&self) -> Vec<u8> {
        let mut line = serde_json::to_vec(self).unwrap_or_default();
        line.push(b'\n');
        line
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::run::ended::tests::ended;

    #[test]
    fn a_record_has_the_fields_of_the_manual() {
        let line = Record::new(&ended(1, "a b", 3), b"out\n\xff", b"err").json_line();
        insta::assert_snapshot!(String::from_utf8(line).unwrap(), @r#"{"index":0,"host":"web1","pid":77,"attempt":0,"start":1700000000.123456,"runtime":0.012345,"exit":3,"signal":null,"outcome":"failed","stdout":"out\n�","stderr":"err","cmd":"echo 'a b'"}"#);
    }
}
