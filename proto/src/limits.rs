//! Every limit of the wire and of the queues, in one place, with what happens when it is reached.

use std::time::Duration;

/// Longest header of a frame, in bytes. A longer one is a malformed frame: the session closes.
pub const FRAME_HEADER_BYTES_MAX: usize = 4 << 20;
/// Longest body of a frame, in bytes, all segments together. A longer one closes the session; clients refuse a
/// larger argument before it is sent.
pub const FRAME_BODY_BYTES_MAX: usize = 1 << 30;
/// Most segments of a body. More closes the session; senders merge small payloads, so that honest frames stay far below.
pub const FRAME_SEGMENTS_MAX: usize = 4096;
/// A segment from this size on travels on a stream of its own, where the carrier has such streams, so that bulk
/// never blocks control.
pub const BULK_BYTES_MIN: usize = 64 << 10;
/// Longest header and body of a frame from a peer that has not been authenticated (joining), in bytes.
pub const JOIN_FRAME_BYTES_MAX: usize = 64 << 10;
/// How long an unauthenticated peer may take to join before it is dropped.
pub const JOIN_TIME_MAX: Duration = Duration::from_secs(5);
/// How long a connection may take to be usable: handshake and Hello.
pub const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);
/// Frames that wait to be sent on a session before `send` waits too.
pub const SEND_QUEUE_FRAMES: usize = 1024;
/// Bytes of large frames (from [`BULK_BYTES_MIN`] on) that wait to be sent on a session before `send` waits too. A
/// larger frame goes when it is alone.
pub const SEND_QUEUE_BYTES: usize = 32 << 20;
/// How long a session that is closed goes on sending what was queued and why it closes.
pub const CLOSE_TIME_MAX: Duration = Duration::from_secs(1);
/// Bytes of bulk that a session reads ahead of whoever receives its frames. A larger frame is read when it is alone.
pub const BULK_HELD_BYTES_MAX: usize = 64 << 20;
/// Bytes of buffers that a process keeps for the next bulk when it needs them no more; others go back to the kernel.
pub const SPARE_BYTES_MAX: usize = 16 << 20;
/// Frames that may wait for their bulk before a session stops reading what comes behind them.
pub const BULK_FRAMES_MAX: usize = 1024;
/// TLS handshakes that a coordinator works on at once. Others wait; none is dropped.
pub const HANDSHAKES_MAX: usize = 16;
/// Connections that a coordinator does not know yet. Others wait with the kernel.
pub const STRANGERS_MAX: usize = 1024;
/// First packets of QUIC connections that a coordinator looks at in a second, in the long run. Others are lost, so that a
/// flood of them costs those who are in little; whoever is among them comes by TCP, or tries again. A handshake takes two,
/// or three in a crowd, so this is about as many as a coordinator can do.
pub const FIRST_PACKETS_PER_S_MAX: u32 = 1000;
/// As many at once, when there were few before: a fleet that comes back.
pub const FIRST_PACKETS_AT_ONCE_MAX: u32 = 5000;
/// Sessions that wait to be accepted by the coordinator proper before handshakes wait too.
pub const ACCEPT_QUEUE: usize = 64;

/// Largest argument or result of one task, in bytes.
pub const PAYLOAD_BYTES_MAX: usize = FRAME_BODY_BYTES_MAX - (1 << 20);
/// Longest input of `fleetpool map`, in bytes: Linux passes no longer word to a program (`MAX_ARG_STRLEN`, its NUL apart). A
/// longer one is refused, and no more are read; tasks of the inputs before it run.
pub const INPUT_BYTES_MAX: usize = (128 << 10) - 1;
/// Tasks in one `Submit` or `Grant`. Senders split; a receiver takes more, up to the header's limit.
pub const BATCH_TASKS_MAX: usize = 4096;
/// Bytes of small payloads in one batch, after which senders start another.
pub const BATCH_BYTES_MAX: usize = 1 << 20;

/// Tasks a client may have submitted and not yet consumed the results of, unless its pool has more slots
/// than a quarter of it. Clients wait for credit past it, which is what bounds a lazy input.
pub const POOL_WINDOW_TASKS: u64 = 65_536;
/// Bytes of arguments a client may have at the coordinator that have not been granted yet; one task always fits. And bytes
/// of results that it may be behind with: past them nothing more is granted, and before, nothing ahead of slots whose
/// results would pass them.
pub const POOL_WINDOW_BYTES: u64 = 16 << 20;
/// Bytes of payloads that a pool makes a coordinator hold, arguments and results together, besides an argument that
/// passes the window, a result that does, an argument or a result for each slot, and what is sent ahead of slots (4 MiB a
/// host, or one task). A payload is there once: the
/// core, the queue of a session and the session itself share its bytes. What a session reads and sends comes on top,
/// [`BULK_HELD_BYTES_MAX`] at most if its peer sends what nobody asked it for.
pub const POOL_HELD_BYTES_MAX: u64 = 2 * POOL_WINDOW_BYTES;

/// Tasks that a detached pool may have waiting, and bytes of their arguments: nobody consumes its results, so that nothing else
/// would bound it. Its client waits with more.
pub const JOB_TASKS_MAX: u64 = 10_000_000;
/// The same for the bytes of their arguments.
pub const JOB_ARGUMENT_BYTES_MAX: u64 = 1 << 30;
/// Bytes that a coordinator keeps on disk of what one detached pool's tasks return and print. Past them the pool is ended.
pub const JOB_KEPT_BYTES_MAX: u64 = 10 << 30;
/// How long that is kept after the pool has ended.
pub const JOB_KEPT_FOR: Duration = Duration::from_hours(24);

/// Longest line of output kept together; a longer one is cut into pieces of this size, in bytes. Output stays below
/// bulk, so that it is never overtaken by the report of the task that printed it.
pub const OUTPUT_LINE_BYTES_MAX: usize = BULK_BYTES_MIN - 1;
/// Bytes of a pool's output that an agent holds until its coordinator has acknowledged them, before it stops reading from
/// the pool's tasks (which slows them down). A relay holds as much of its worker's output until its agent has it.
pub const OUTPUT_HELD_BYTES_MAX: usize = 4 << 20;
/// Bytes of output that a command-line client keeps on disk until it is their turn to be written. Past it tasks are no
/// longer printed as a whole, but line by line; where that cannot be (`--keep-order`, `--json`), the run fails.
pub const SPOOL_BYTES_MAX: u64 = 1 << 30;
/// Last bytes of stderr that are kept to explain a lost worker.
pub const STDERR_TAIL_BYTES: usize = 2048;

/// Bytes of pickled functions that an agent keeps in memory for pools to come, besides those that living pools need. What
/// was used longest ago goes first, and is asked for again.
pub const CONTENT_KEPT_BYTES_MAX: usize = 64 << 20;

/// Content from this size on is passed on by agents where several hosts need it, in bytes. Smaller content is with all of them
/// before agents could have met.
pub const PASSED_ON_BYTES_MIN: usize = 1 << 20;
/// Agents that one agent passes a content on to: each gets its share of what the host can send, and the tree is as deep as the
/// logarithm of its size.
pub const PASSED_ON_TO_MAX: usize = 2;
/// Addresses of a host that other agents try. More are not looked at.
pub const PASSING_ADDRESSES_MAX: usize = 8;
/// How long an agent may take to say where content is to be had of it: where bulk has no way of its own (over ssh, TLS over TCP), the
/// question waits behind the content itself. Then others get it from the coordinator.
pub const PASSING_ANSWER_TIME_MAX: Duration = Duration::from_secs(30);
/// How long an agent tries to reach another, handshake included. Then it asks the coordinator.
pub const PASSING_CONNECT_TIME_MAX: Duration = Duration::from_secs(3);
/// An agent that passes content on says so at least this often, also while none comes.
pub const PASSING_BEAT: Duration = Duration::from_secs(1);
/// How long an agent may be silent that others get content of. Then they ask the coordinator.
pub const PASSING_SILENCE_MAX: Duration = Duration::from_secs(5);
/// How long no content may come although the agent that passes it on is there: it waits for it itself, for the coordinator in the
/// end, over a line that may be slow and would be slower for two. Then the coordinator is asked.
pub const PASSING_WAIT_MAX: Duration = Duration::from_secs(600);
/// How long an agent listens for others while none is being served. Then its port is closed.
pub const PASSING_IDLE_MAX: Duration = Duration::from_secs(30);
/// Connections to that port that have not shown who they are. More wait with the kernel until there is room.
pub const PASSING_STRANGERS_MAX: usize = 16;

/// Longest selector, in bytes: far above what people and programs write, far below what would take time to match. A
/// longer one is refused.
pub const SELECTOR_BYTES_MAX: usize = 64 << 10;
/// Parentheses in a selector, one in another. Deeper ones are refused, since reading them takes stack.
pub const SELECTOR_DEEP_MAX: usize = 64;
/// Most hosts that a selector lists where no fleet is known (`--hosts`). More is refused before memory is taken for
/// them: a number is too large then.
pub const HOSTS_LISTED_MAX: usize = 100_000;
/// Longest name of a host to be listed, or of a group, in bytes: a DNS name and a user before it. A longer one is refused.
pub const HOST_NAME_BYTES_MAX: usize = 320;
/// How long a command may take that is asked for the hosts of a group. Then it is killed, and the selector refused.
pub const GROUP_TIME_MAX: Duration = Duration::from_secs(10);
/// Most that such a command may print, in bytes. More is refused.
pub const GROUP_BYTES_MAX: usize = 1 << 20;
/// Groups of hosts within each other. Deeper ones are refused.
pub const GROUPS_DEEP_MAX: usize = 16;
/// Most groups that one word of a selector names, as in `@rack[1-40]`. More are refused.
pub const GROUPS_IN_WORD_MAX: usize = 1000;

/// An agent's right to its slots lasts this long after it *sent* the renewal that was answered.
pub const LEASE: Duration = Duration::from_secs(30);
/// How long agents and clients wait, at least, for a coordinator that was stopped on purpose. Its successor waits as long, and for the
/// margins of that, before it grants again what hosts had that are not back.
pub const PLANNED_STOP: Duration = Duration::from_mins(10);
/// Leases that a client which has lost its session without a word, or whose coordinator was started again, may take to come back
/// before its pools are ended. (A client that was killed is known to be gone at once, by its lifeline.)
pub const CLIENT_GRACE_LEASES: u32 = 2;
/// What the coordinator waits on top of the lease before it grants a lost host's tasks again: a tenth of the
/// lease for clocks that run at different speeds, and this for the time it takes to kill.
pub const LEASE_MARGIN: Duration = Duration::from_secs(2);
/// Runs of a task that a lost host may cost before the task is given up.
pub const HOST_LOST_RETRIES: u32 = 3;
/// How long processes have between TERM and KILL, unless the pool says otherwise.
pub const KILL_GRACE: Duration = Duration::from_secs(1);
/// Most slots of one host.
pub const SLOTS_MAX: u16 = 4096;
