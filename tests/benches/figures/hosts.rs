//! Many hosts: real ones in namespaces, over real ssh, against the tools that operators use.

use std::{path::Path, process::Stdio, time::Instant};

use fleetpool_test_fleet::{Fleet, Host, Running};

use crate::{
    measure::{Contestant, Turns, interleave},
    table::{Line, Target},
};

const HOSTS: usize = 20;
/// Turns of each: they take seconds.
const ROUNDS: usize = 5;
const JOBS: u32 = 1000;
/// GNU parallel does six a second.
const PARALLEL_JOBS: u32 = 60;
const PUT_MIB: u64 = 256;

/// All that is about many hosts.
pub(crate) fn case(fleetpool: &Path) -> Vec<Line> {
    let missing: Vec<_> = ["pdsh", "clush", "parallel"]
        .into_iter()
        .filter(|program| !Path::new("/usr/bin").join(program).exists())
        .collect();
    if !missing.is_empty() {
        let reason = format!(
            "install {} (Debian: pdsh clustershell parallel)",
            missing.join(", ")
        );
        return vec![Line::left_out("hosts", &reason)];
    }
    let fleet = match Fleet::plan(HOSTS).program("fleetpool", fleetpool).start() {
        Ok(fleet) => fleet,
        Err(error) => return vec![Line::left_out("hosts", &error.to_string())],
    };
    let _coordinator = Coordinator::start(fleet.head());
    let mut lines = deploy(&fleet);
    lines.extend(exec(fleet.head()));
    lines.extend(put(fleet.head()));
    run(fleet.head(), "fleetpool undeploy -q 'h[1-20]'");
    lines.extend(ad_hoc(&fleet));
    lines
}

/// Stopped when the case is over.
struct Coordinator(Running);

impl Coordinator {
    fn start(head: Host<'_>) -> Self {
        run(
            head,
            "mkdir -p .config/fleetpool && echo 'cluster = \"head:7700\"' >.config/fleetpool/config.toml && fleetpool init",
        );
        let mut command = head.command("fleetpool");
        command.arg("coordinator").stderr(Stdio::null());
        let coordinator = Self(command.spawn().expect("it starts"));
        run(
            head,
            "until fleetpool status >/dev/null 2>&1; do sleep 0.1; done",
        );
        coordinator
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Runs a line that has to succeed.
fn run(host: Host<'_>, line: &str) {
    let _ = host.sh(line);
}

/// Seconds that a line takes.
fn seconds(host: Host<'_>, line: &str) -> f64 {
    let start = Instant::now();
    run(host, line);
    start.elapsed().as_secs_f64()
}

fn deploy(fleet: &Fleet) -> Vec<Line> {
    let head = fleet.head();
    let copy = "pdsh -R exec -f 32 -w 'h[1-20]' sh -c 'ssh %h \"cat >/root/copy && chmod +x /root/copy && (setsid /root/copy agent --stdio >/dev/null 2>&1 &)\" </usr/bin/fleetpool'";
    let turns = interleave(
        ROUNDS,
        &mut [
            Contestant::new("fleetpool", || {
                run(head, "fleetpool undeploy -q 'h[1-20]'");
                seconds(head, "fleetpool deploy -q 'h[1-20]'")
            }),
            Contestant::new("pdsh", || seconds(head, copy)),
        ],
    );
    run(head, "pdsh -R ssh -w 'h[1-20]' rm -f /root/copy");
    vec![Line::against(
        "hosts: deploy 20",
        "s",
        &turns[0],
        "pdsh, a copy and a start",
        &turns[1],
        Target::RatioAtMost(2.0),
    )]
}

fn exec(head: Host<'_>) -> Vec<Line> {
    let turns = interleave(
        ROUNDS,
        &mut [
            Contestant::new("fleetpool", || {
                seconds(head, "fleetpool exec --on '*' -- true")
            }),
            Contestant::new("pdsh", || seconds(head, "pdsh -R ssh -w 'h[1-20]' true")),
            Contestant::new("clush", || seconds(head, "clush -w 'h[1-20]' true")),
        ],
    );
    let line = |at: usize, name| {
        Line::against(
            "hosts: exec on 20",
            "s",
            &turns[0],
            name,
            &turns[at],
            Target::RatioAtMost(0.05),
        )
    };
    vec![line(1, "pdsh"), line(2, "clush")]
}

fn put(head: Host<'_>) -> Vec<Line> {
    let sent = || -> u64 {
        head.sh("cat /sys/class/net/eth0/statistics/tx_bytes")
            .trim()
            .parse()
            .expect("a number")
    };
    let mut figures = Vec::new();
    // Another content each time, so that nobody has it.
    let fresh = || {
        run(
            head,
            &format!("head -c {} /dev/urandom >/root/content", PUT_MIB << 20),
        )
    };
    // What a virtual machine touches for the first time its host has to find: several times slower than all that follows.
    run(
        head,
        "head -c 8G /dev/zero >/dev/shm/touched; rm /dev/shm/touched",
    );
    for _ in 0..3 {
        fresh();
        let one = seconds(head, "fleetpool put -q --on h1 /root/content /tmp/");
        fresh();
        let before = sent();
        let eight = seconds(head, "fleetpool put -q --on 'h[1-8]' /root/content /tmp/");
        #[expect(clippy::cast_precision_loss, reason = "far below 2^53")]
        let times = (sent() - before) as f64 / (PUT_MIB << 20) as f64;
        figures.push((one, eight, times));
    }
    run(head, "fleetpool exec --on '*' -- rm -f /tmp/content");
    let of = |pick: fn(&(f64, f64, f64)) -> f64| Turns::of(figures.iter().map(pick));
    vec![
        Line::against(
            "hosts: put 256 MiB to 8",
            "s",
            &of(|figures| figures.1),
            "to 1",
            &of(|figures| figures.0),
            Target::RatioAtMost(2.5),
        ),
        Line::alone(
            "hosts: put 256 MiB to 8, sent by the coordinator's host",
            "x its size",
            &of(|figures| figures.2),
            Target::AtMost(1.5),
        ),
    ]
}

fn ad_hoc(fleet: &Fleet) -> Vec<Line> {
    let head = fleet.head();
    let turns = interleave(
        ROUNDS,
        &mut [
            Contestant::new("fleetpool", || {
                run(head, "for i in 1 2 3 4; do ssh h$i rm -rf .cache; done");
                f64::from(JOBS)
                    / seconds(
                        head,
                        &format!("seq {JOBS} | fleetpool map --hosts 'h[1-4]' true"),
                    )
            }),
            Contestant::new("parallel", || {
                f64::from(PARALLEL_JOBS)
                    / seconds(
                        head,
                        &format!("seq {PARALLEL_JOBS} | parallel --will-cite -S h1,h2,h3,h4 true"),
                    )
            }),
        ],
    );
    vec![Line::against(
        "hosts: map --hosts of 4, true, cold",
        "jobs/s",
        &turns[0],
        "parallel -S",
        &turns[1],
        Target::RatioAtLeast(50.0),
    )]
}
