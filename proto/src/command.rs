//! The payloads of the `command` runtime.

use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;

/// A command to run: the argument of a task of the `command` runtime, in MessagePack.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct CommandTask {
    /// The program and its arguments. No shell sees them, unless the program is one.
    pub argv: Vec<Word>,
}

/// One word of a command, in pieces. Only what the client could not know is left for the host to fill in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Word(pub Vec<Piece>);

impl Word {
    /// A word without anything to fill in.
    pub fn literal(bytes: impl Into<Vec<u8>>) -> Self {
        Self(vec![Piece::Literal(ByteBuf::from(bytes.into()))])
    }
}

/// A part of a word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Piece {
    /// These bytes.
    #[serde(rename = "l")]
    Literal(ByteBuf),
    /// The host's name, as its agent registered it.
    #[serde(rename = "h")]
    Host,
    /// The slot's number, counted from 1 as GNU parallel does.
    #[serde(rename = "s")]
    Slot,
}

/// How a command ended: the payload of `Done` and `Failed` of the `command` runtime, in MessagePack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct CommandEnd {
    /// Its exit status, where it exited.
    pub exit: Option<i32>,
    /// The signal that ended it, where one did.
    pub signal: Option<i32>,
    /// Largest resident memory of its tree's largest process, in KiB.
    pub memory_kib_peak: u64,
    /// CPU time of its tree in user mode, in microseconds.
    pub user_us: u64,
    /// CPU time of its tree in the kernel, in microseconds.
    pub system_us: u64,
    /// Processes that it had left running, and that were ended (G6).
    pub leaked: u32,
}
