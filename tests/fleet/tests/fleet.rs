//! The fleet keeps what it promises to the tests that stand on it.

use std::{
    fs,
    process::{Command, Stdio},
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
fn a_host_behind_the_jump_host_is_reached_through_it_alone() {
    let fleet = Fleet::plan(2).behind_jump("h2").start().unwrap();
    assert_eq!(
        fleet.head().sh("ssh h2 hostname; ssh jump hostname"),
        "h2\njump\n"
    );
    let said = refused(fleet.head(), &format!("{SSH} -o ProxyJump=none h2 true"));
    assert!(said.contains("unreachable"), "{said}");
    let said = refused(
        fleet.host("h2"),
        "ping -c1 -W1 10.77.0.2 || echo no way >&2; false",
    );
    assert!(
        said.contains("no way") || said.contains("not found"),
        "{said}"
    );
}

#[test]
fn a_host_that_is_cut_off_is_silent_and_comes_back() {
    let fleet = Fleet::of(1).unwrap();
    let h1 = fleet.host("h1");
    h1.cut_off();
    let said = refused(fleet.head(), &format!("{SSH} h1 true"));
    assert!(said.contains("timed out"), "{said}");
    h1.heal();
    assert_eq!(fleet.head().sh("ssh h1 hostname"), "h1\n");
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
    let _ = fleet.head().sh("ssh h1 'touch /usr/bin/x /opt/y; useradd -r z; mkdir -p /var/lib/w /etc/systemd/system/v.d'");
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
    fleet.host("h4").configure_sshd("MaxStartups 1");
    let said = head.sh("for i in 1 2 3 4 5 6 7 8; do ssh h4 true & done 2>&1; wait");
    assert!(said.contains("kex_exchange_identification"), "{said}");
}

#[test]
fn systemd_runs_units_where_it_is_asked_for() {
    let fleet = Fleet::plan(1).systemd().start().unwrap();
    let said = fleet.head().sh("ssh h1 'systemd-run -q --wait --pipe -p DynamicUser=yes id -un; systemctl is-active ssh; cat /proc/1/comm'");
    assert!(said.starts_with("run-u"), "{said}");
    assert!(said.ends_with("\nactive\nsystemd\n"), "{said}");
}

/// Whatever becomes of the owner.
#[test]
fn nothing_is_left_on_the_machine() {
    let state = || {
        let links = Command::new("ip")
            .args(["-o", "link"])
            .output()
            .unwrap()
            .stdout;
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        (links, mounts)
    };
    let before = state();
    let mut owner = Command::new(env!("CARGO_BIN_EXE_test-fleet"))
        .args([
            "--hosts",
            "1",
            "--",
            "sh",
            "-c",
            "ssh h1 'echo up; exec sleep 986.5'",
        ])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    until("it runs", || running("986.5"));
    owner.kill().unwrap();
    owner.wait().unwrap();
    until("it is gone", || !running("986.5"));
    assert!(state() == before);
}

/// Whether a process has this as its last argument.
fn running(word: &str) -> bool {
    let entries = fs::read_dir("/proc").unwrap().flatten();
    let lines = entries.filter_map(|entry| fs::read(entry.path().join("cmdline")).ok());
    let last = format!("sleep\0{word}\0");
    lines.into_iter().any(|line| line == last.as_bytes())
}
