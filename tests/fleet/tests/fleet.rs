//! The fleet keeps what it promises to the tests that stand on it.

use std::{
    fs,
    io::Write as _,
    os::unix::process::{CommandExt as _, ExitStatusExt as _},
    panic::AssertUnwindSafe,
    process::{Child, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

use fleetpool_test_fleet::{Fleet, Host};

/// How long anything may take that is waited for.
const PATIENCE: Duration = Duration::from_secs(20);
/// ssh that gives up on a host that says nothing.
const SSH: &str = "ssh -o BatchMode=yes -o ConnectTimeout=1";

#[track_caller]
fn until(what: &str, condition: impl Fn() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < PATIENCE, "waited in vain: {what}");
        sleep(Duration::from_millis(10));
    }
}

/// What a line of `sh` that fails says on stderr.
#[track_caller]
fn refused(host: Host<'_>, line: &str) -> String {
    let output = host.try_sh(line);
    assert!(!output.status.success(), "`{line}` works");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn every_host_is_a_machine_of_its_own() {
    let fleet = Fleet::of(2).unwrap();
    let head = fleet.head();
    assert_eq!(
        head.sh("ssh h1 hostname; ssh ada@h2 'hostname; sudo id -un'"),
        "h1\nh2\nroot\n"
    );
    assert_eq!(
        head.sh("ssh h1 'ls /work /opt /home/ada /srv'"),
        "/home/ada:\n\n/opt:\n\n/srv:\n\n/work:\n"
    );
    let _ = head.sh("ssh h1 touch /root/a /etc/b /run/c");
    assert_eq!(
        fleet
            .host("h2")
            .sh("ls /root; ls /etc/b /run/c 2>&1 | wc -l"),
        "2\n"
    );
    assert!(!fs::exists("/etc/b").unwrap());
    let boot = |host: &str| fleet.host(host).sh("cat /proc/sys/kernel/random/boot_id");
    assert_ne!(boot("h1"), boot("h2"));
    assert_eq!(
        head.command("id")
            .user("ada")
            .arg("-un")
            .output()
            .unwrap()
            .stdout,
        b"ada\n"
    );
}

#[test]
fn commands_are_children_with_the_environment_of_a_login() {
    let fleet = Fleet::of(1).unwrap();
    let h1 = fleet.host("h1");
    let mut shown = h1.command("sh");
    shown.args(["-c", "env | grep -v ^_ | sort; pwd; id -un; cat; exit 7"]);
    shown.user("ada").env("GIVEN", "1").current_dir("/usr");
    let mut shown = shown
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    shown.stdin.take().unwrap().write_all(b"said\n").unwrap();
    let output = shown.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(7));
    assert_eq!(
        String::from_utf8(output.stdout).unwrap(),
        "GIVEN=1\nHOME=/home/ada\nLOGNAME=ada\n\
         PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\nPWD=/usr\nUSER=ada\n\
         /usr\nada\nsaid\n"
    );

    let mut interrupted = h1.command("sh");
    interrupted.args([
        "-c",
        "trap 'exit 5' INT; touch up; while :; do sleep 0.01; done",
    ]);
    let mut interrupted = interrupted.spawn().unwrap();
    until("it listens to signals", || {
        h1.try_sh("test -e up").status.success()
    });
    interrupted.interrupt().unwrap();
    assert_eq!(interrupted.wait().unwrap().code(), Some(5));

    let mut killed = h1.command("sleep").arg("985").spawn().unwrap();
    assert!(killed.try_wait().unwrap().is_none());
    killed.kill().unwrap();
    assert_eq!(killed.wait().unwrap().signal(), Some(9));

    assert!(h1.command("no-such-program").spawn().is_err());
    let early = h1.command("true");
    h1.power_off();
    for mut command in [early, h1.command("true")] {
        assert!(command.status().is_err(), "it runs where nothing can");
    }
}

#[test]
fn a_host_behind_the_jump_host_is_reached_through_it_alone() {
    let fleet = Fleet::plan(2).behind_jump("h2").start().unwrap();
    assert_eq!(
        fleet.head().sh("ssh h2 hostname; ssh jump hostname"),
        "h2\njump\n"
    );
    let said = refused(fleet.head(), &format!("{SSH} -o ProxyJump=none h2 true"));
    assert!(said.contains("unreachable"), "{said}");
    // Nor does it reach them, or anybody a way out.
    for host in ["h2", "head"] {
        for address in ["10.77.0.11", "10.78.0.12", "192.0.2.1"] {
            let line = format!("bash -c 'echo >/dev/tcp/{address}/22'");
            let near = host == "head" && address == "10.77.0.11"
                || host == "h2" && address == "10.78.0.12";
            assert_eq!(
                fleet.host(host).try_sh(&line).status.success(),
                near,
                "{host} to {address}"
            );
        }
    }
}

#[test]
fn a_host_that_is_cut_off_is_silent_and_comes_back() {
    let fleet = Fleet::of(1).unwrap();
    let h1 = fleet.host("h1");
    h1.cut_off();
    let said = refused(fleet.head(), &format!("{SSH} h1 true"));
    assert!(said.contains("timed out"), "{said}");
    h1.heal();
    h1.heal();
    assert_eq!(fleet.head().sh("ssh h1 hostname"), "h1\n");
}

/// Datagrams on their way to the head and back, in batches that no buffer is too small for.
#[test]
fn some_packets_are_lost() {
    let fleet = Fleet::of(1).unwrap();
    let (head, h1) = (fleet.head(), fleet.host("h1"));
    let mut echo = head
        .command("python3")
        .args(["-c", "import socket\ns = socket.socket(2, 2)\ns.bind(('', 9))\nwhile True: s.sendto(*s.recvfrom(99))"])
        .spawn()
        .unwrap();
    until("it listens", || {
        head.sh("cat /proc/net/udp").contains(":0009")
    });
    // Of 100; a batch of which some are lost is given up after so much silence.
    let returned = |silence_s: f32| -> usize {
        let said = h1.sh(&format!(
            "python3 -c \"
import socket
s = socket.socket(2, 2)
s.settimeout({silence_s})
count = 0
for batch in range(5):
    for number in range(20): s.sendto(b'x', ('head', 9))
    try:
        for number in range(20): count += len(s.recv(9))
    except TimeoutError: pass
print(count)\""
        ));
        said.trim().parse().unwrap()
    };
    h1.lose(50);
    let quarter = returned(0.2);
    assert!((1..60).contains(&quarter), "{quarter}");
    h1.lose(0);
    assert_eq!(returned(10.0), 100);
    echo.kill().unwrap();
}

/// Sends a datagram to the head, and says by ssh when it came.
#[test]
fn udp_is_dropped_without_a_word_and_tcp_is_not() {
    let fleet = Fleet::of(2).unwrap();
    let head = fleet.head();
    let mut listener = head
        .command("python3")
        .args(["-uc", "import socket\ns = socket.socket(2, 2)\ns.bind(('', 9))\nprint('ready')\nwhile True: open('/root/got', 'ab').write(s.recv(99))"])
        .spawn()
        .unwrap();
    until("it listens", || {
        head.sh("cat /proc/net/udp").contains(":0009")
    });
    let send = |host: &str| {
        fleet.host(host).sh("echo from $(hostname) >/dev/udp/10.77.0.2/9 2>/dev/null || bash -c 'echo from $HOSTNAME >/dev/udp/10.77.0.2/9'")
    };
    fleet.host("h1").drop_udp();
    let _ = (send("h1"), send("h2"));
    until("that of h2 comes", || {
        head.sh("cat /root/got 2>/dev/null; true").contains("h2")
    });
    assert!(!head.sh("cat /root/got").contains("h1"));
    assert_eq!(head.sh("ssh h1 hostname"), "h1\n");
    fleet.host("h1").pass_udp();
    until("that of h1 comes", || {
        let _ = send("h1");
        head.sh("cat /root/got").contains("h1")
    });
    listener.kill().unwrap();
    listener.wait().unwrap();
}

#[test]
fn a_host_without_power_loses_its_processes_and_keeps_its_files() {
    let fleet = Fleet::of(1).unwrap();
    let h1 = fleet.host("h1");
    let boot_id = h1.sh("cat /proc/sys/kernel/random/boot_id; echo kept >/root/file; setsid sleep 987 >/dev/null 2>&1 &");
    until("it runs", || h1.processes() == ["root sleep 987"]);
    let mut stuck = h1.command("sleep").arg("988").spawn().unwrap();
    h1.power_off();
    assert!(!stuck.wait().unwrap().success());
    let said = refused(fleet.head(), &format!("{SSH} h1 true"));
    assert!(
        said.contains("No route to host") || said.contains("timed out"),
        "{said}"
    );
    h1.boot();
    assert_eq!(fleet.head().sh("ssh h1 cat /root/file"), "kept\n");
    assert_eq!(h1.processes(), Vec::<String>::new());
    assert_ne!(h1.sh("cat /proc/sys/kernel/random/boot_id"), boot_id);
}

#[test]
fn a_listing_tells_what_was_left() {
    let fleet = Fleet::of(1).unwrap();
    let before = fleet.listings();
    let _ = fleet.head().sh("ssh h1 true; ssh h1 'touch /usr/bin/x /opt/y /etc/passwd; useradd -r z; userdel z; rm /usr/bin/x /opt/y'");
    assert_eq!(fleet.listings(), before);
    let _ = fleet.head().sh("ssh h1 'touch /usr/bin/x /opt/y; useradd -r z; mkdir -p /var/lib/w /etc/systemd/system/v.d /run/u /dev/shm/t'");
    let after = fleet.host("h1").listing();
    let new: Vec<_> = after
        .iter()
        .filter(|line| !before["h1"].contains(line))
        .collect();
    let names: Vec<_> = new
        .iter()
        .filter_map(|line| line.split(' ').next())
        .collect();
    for left in [
        "/usr/bin/x",
        "/opt/y",
        "/etc/passwd",
        "/var/lib/w",
        "/etc/systemd/system/v.d",
        "/run/u",
        "/dev/shm/t",
    ] {
        assert!(names.contains(&left), "no {left} in {names:?}");
    }
}

#[test]
fn hosts_can_be_made_unfit() {
    let fleet = Fleet::of(4).unwrap();
    let (head, h1, h2) = (fleet.head(), fleet.host("h1"), fleet.host("h2"));
    h1.fill_disk();
    let said = refused(
        h1,
        "dd if=/dev/zero of=/root/big bs=1M count=1 2>&1 >/dev/null | cat >&2; false",
    );
    assert!(said.contains("No space left"), "{said}");
    h1.free_disk();
    let _ = h1.sh("dd if=/dev/zero of=/root/big bs=1M count=1 2>/dev/null");
    h1.take_away("python3");
    assert!(refused(h1, "python3 -V").contains("not found"));
    h2.pretend_machine("aarch64");
    assert_eq!(
        head.sh("ssh h2 'uname -m; uname -sm; uname -n'"),
        "aarch64\nLinux aarch64\nh2\n"
    );
    fleet.host("h3").new_host_key();
    let said = refused(head, &format!("{SSH} h3 true"));
    assert!(
        said.contains("REMOTE HOST IDENTIFICATION HAS CHANGED"),
        "{said}"
    );
    let h4 = fleet.host("h4");
    h4.configure_sshd("MaxStartups 1\n# It's \"quoted\" \\ and $(more)\nMaxSessions 7");
    assert_eq!(
        h4.sh("/usr/sbin/sshd -T | grep maxsessions"),
        "maxsessions 7\n"
    );
    let said = head.sh("for i in 1 2 3 4 5 6 7 8; do ssh h4 true & done 2>&1; wait");
    assert!(said.contains("kex_exchange_identification"), "{said}");
}

#[test]
fn systemd_runs_units_where_it_is_asked_for() {
    let fleet = Fleet::plan(2).systemd_on(&["h1"]).start().unwrap();
    let before = fleet.listings();
    let said = fleet.head().sh("ssh h1 'systemd-run -q --wait --pipe -p DynamicUser=yes id -un; systemctl is-active ssh; cat /proc/1/comm'");
    assert!(said.starts_with("run-u"), "{said}");
    assert!(said.ends_with("\nactive\nsystemd\n"), "{said}");
    assert_eq!(fleet.head().sh("ssh h2 cat /proc/1/comm"), "bash\n");
    assert_eq!(fleet.changes_since(&before), Vec::<String>::new());
}

/// Links and mounts of this machine.
fn machine() -> (Vec<u8>, String) {
    let links = Command::new("ip").args(["-o", "link"]).output().unwrap();
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
    (links.stdout, mounts)
}

/// Somebody else's fleet on the head of which, and on h1, a `sleep` of that length runs.
fn owner(length: &str) -> Child {
    let line = format!("ssh h1 'exec sleep {length}'");
    let owner = Command::new(env!("CARGO_BIN_EXE_test-fleet"))
        .args(["--hosts", "1", "--", "sh", "-c", &line])
        .process_group(0)
        .spawn()
        .unwrap();
    until("it runs", || running(length));
    owner
}

#[test]
fn nothing_is_left_on_the_machine_when_a_fleet_is_dropped() {
    let before = machine();
    let fleet = Fleet::of(2).unwrap();
    let _ = fleet
        .host("h1")
        .sh("setsid sleep 984.5 >/dev/null 2>&1 & sleep 0");
    let mut inside = fleet.host("h2").command("sleep");
    let mut inside = inside.arg("984.5").spawn().unwrap();
    until("it runs", || running("984.5"));
    // In a test that fails.
    let failed = std::panic::catch_unwind(AssertUnwindSafe(move || {
        let _owned = fleet;
        panic!("on purpose");
    }));
    assert!(failed.is_err());
    assert!(!running("984.5"));
    assert_eq!(inside.wait().unwrap().signal(), Some(9));
    assert!(machine() == before);
}

#[test]
fn nothing_is_left_on_the_machine_whatever_becomes_of_the_owner() {
    let before = machine();
    for (signal, whole_group) in [
        ("KILL", false),
        ("KILL", true),
        ("INT", true),
        ("TERM", true),
    ] {
        let mut owner = owner("986.5");
        let target = if whole_group { "-" } else { "" };
        let target = format!("{target}{}", owner.id());
        let sent = Command::new("kill")
            .args(["-s", signal, "--", &target])
            .status();
        assert!(sent.unwrap().success());
        owner.wait().unwrap();
        until("it is gone", || !running("986.5"));
    }
    assert!(machine() == before);
}

/// While hosts are being made, too.
#[test]
fn nothing_is_left_of_a_fleet_that_is_half_made() {
    for moment_ms in [50, 150, 250, 350] {
        let mut owner = Command::new(env!("CARGO_BIN_EXE_test-fleet"))
            .args(["--hosts", "3", "--", "sleep", "983.5"])
            .process_group(0)
            .spawn()
            .unwrap();
        sleep(Duration::from_millis(moment_ms));
        let yards = children(owner.id());
        let _ = Command::new("kill")
            .args(["-s", "TERM", "--", &format!("-{}", owner.id())])
            .status();
        owner.wait().unwrap();
        until("its yard is gone", || {
            yards.iter().all(|yard| !fs::exists(yard).unwrap())
        });
    }
}

/// Whether a process has this as its last argument.
fn running(word: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let last = format!("sleep\0{word}\0");
    lines.into_iter().any(|line| line == last.as_bytes())
}

/// Processes that this one has started, as folders of /proc.
fn children(process: u32) -> Vec<String> {
    let file = format!("/proc/{process}/task/{process}/children");
    let numbers = fs::read_to_string(file).unwrap_or_default();
    let folders = numbers.split_whitespace();
    folders.map(|number| format!("/proc/{number}")).collect()
}
