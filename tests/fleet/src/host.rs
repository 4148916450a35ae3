//! One host, and what can be done to it.

use std::process::Output;

use crate::{
    command::{Command, Entrance},
    fleet::Fleet,
    yard::quoted,
};

/// A host of a fleet.
#[derive(Clone, Copy, Debug)]
pub struct Host<'a> {
    pub(crate) fleet: &'a Fleet,
    pub(crate) name: &'a str,
}

impl Host<'_> {
    /// The host's name.
    #[must_use]
    pub fn name(&self) -> &str {
        self.name
    }

    /// A command that runs there as root, not by ssh. It ends when it is killed here, and with the host.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let init = self.ask(&format!("machine_pid {}", self.name));
        let entrance = init
            .trim()
            .parse()
            .ok()
            .and_then(|init| Entrance::of(init).ok());
        Command::new(self.name, entrance, program)
    }

    /// Runs a line of `sh` there as root: what it printed on stdout.
    ///
    /// # Panics
    /// When it fails.
    #[must_use]
    #[track_caller]
    pub fn sh(&self, line: &str) -> String {
        let output = self.try_sh(line);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        let complaint = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "`{line}` on {}: {}: {said}{complaint}",
            self.name,
            output.status
        );
        said
    }

    /// The same, whatever comes of it.
    ///
    /// # Panics
    /// When it cannot be started.
    #[must_use]
    pub fn try_sh(&self, line: &str) -> Output {
        let mut command = self.command("sh");
        let output = command.args(["-c", line]).output();
        output.unwrap_or_else(|error| panic!("`{line}` on {}: {error}", self.name))
    }

    /// Cuts it off the network: what is sent to it, and by it, is lost without a word.
    pub fn cut_off(&self) {
        self.ask(&format!("cut_off {}", self.name));
    }

    /// Ends that.
    pub fn heal(&self) {
        self.ask(&format!("heal {}", self.name));
    }

    /// From now on, UDP to it and from it is lost without a word.
    pub fn drop_udp(&self) {
        self.ask(&format!("drop_udp {}", self.name));
    }

    /// Ends that.
    pub fn pass_udp(&self) {
        self.ask(&format!("pass_udp {}", self.name));
    }

    /// From now on, so many of a hundred packets to it, and as many of those from it, are lost; 0 ends that.
    pub fn lose(&self, percent: u8) {
        self.ask(&format!("loss {} {percent}", self.name));
    }

    /// Turns its power off: nobody there has time to say anything. Its files are as they were.
    pub fn power_off(&self) {
        self.ask(&format!("power_off {}", self.name));
    }

    /// Turns it on again; back when it can be logged in to.
    pub fn boot(&self) {
        self.ask(&format!("boot {}", self.name));
        let up = self.fleet.yard.wait_for(self.name);
        up.expect("it comes up");
    }

    /// Leaves no room for another byte in its files.
    pub fn fill_disk(&self) {
        self.ask(&format!("fill_disk {}", self.name));
    }

    /// Ends that.
    pub fn free_disk(&self) {
        self.ask(&format!("free_disk {}", self.name));
    }

    /// Gives it another key than others know it by.
    pub fn new_host_key(&self) {
        self.ask(&format!("new_host_key {}", self.name));
        self.restart_sshd();
    }

    /// Puts lines before its `sshd_config`, where the first word counts.
    ///
    /// # Panics
    /// When sshd does not accept them.
    pub fn configure_sshd(&self, lines: &str) {
        self.ask(&format!("sshd_config {} {}", self.name, quoted(lines)));
        self.restart_sshd();
    }

    /// The listening process reads its configuration and keys anew; sessions go on. It has when it listens on another socket.
    #[track_caller]
    fn restart_sshd(&self) {
        let _ = self.sh(
            "socket() { awk '$2 ~ /:0016$/ && $4 == \"0A\" { print $10 }' /proc/net/tcp; }
            sshd=$(cat /run/sshd.pid) old=$(socket)
            /usr/sbin/sshd -t && kill -HUP $sshd || exit 1
            until new=$(socket) && [ -n \"$new\" ] && [ \"$new\" != \"$old\" ]; do kill -0 $sshd && [ $((tries += 1)) -lt 2000 ] && sleep 0.01 || exit 1; done",
        );
    }

    /// Takes a program away.
    pub fn take_away(&self, program: &str) {
        let _ = self.sh(&format!("rm -f /usr/bin/{program}*"));
    }

    /// Has it say that it is another machine.
    pub fn pretend_machine(&self, machine: &str) {
        let fake = format!(
            "#!/bin/sh\ncase \"$1\" in -m) echo {machine} ;; -sm) echo Linux {machine} ;; *) exec /usr/bin/uname.real \"$@\" ;; esac\n"
        );
        let line = format!(
            "mv /usr/bin/uname /usr/bin/uname.real && printf '%s' '{}' >/usr/bin/uname && chmod 755 /usr/bin/uname",
            fake.replace('\'', "'\\''")
        );
        let _ = self.sh(&line);
    }

    /// Processes of the host's own: user and command line of each. Left out: the host's first process and sshd, what came in by
    /// [`command`](Self::command), and who is dead.
    #[must_use]
    pub fn processes(&self) -> Vec<String> {
        let all = self.sh("ps -e -o pid=,ppid=,stat=,user=,comm=,args=");
        let ours = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let [pid, parent, state, user, name, command @ ..] = &words[..] else {
                return None;
            };
            let aside = *pid == "1" || *parent == "0" || state.starts_with('Z');
            let known =
                name.starts_with("sshd") || command == ["sleep", "2147483647"] || *name == "ps";
            (!aside && !known).then(|| format!("{user} {}", command.join(" ")))
        };
        all.lines().filter_map(ours).collect()
    }

    /// All that is there and not on every machine: path, kind, mode, owner, size, and what files hold.
    #[must_use]
    pub fn listing(&self) -> Vec<String> {
        let said = self.ask(&format!("listing {}", self.name));
        let mut lines: Vec<String> = said.lines().map(str::to_owned).collect();
        lines.sort_unstable();
        lines
    }

    #[track_caller]
    fn ask(&self, request: &str) -> String {
        self.fleet.yard.ask(request).expect("the yard does it")
    }
}
