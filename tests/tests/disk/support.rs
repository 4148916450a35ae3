//! File systems that are small, or that can be made to fail, and a cluster whose coordinator lives there.

use std::{
    fs::{self, File, OpenOptions},
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use fleetpool_tests::cluster::Cluster;
use nix::sched::{CloneFlags, unshare};
use tempfile::TempDir;

/// A file system that is mounted for this thread and its children alone.
pub(crate) struct Disk {
    folder: TempDir,
    /// A file system in a file on the first one, if there is one.
    image: Option<PathBuf>,
}

impl Disk {
    /// A file system in memory, of so many MiB.
    pub(crate) fn of(mib: u32) -> Self {
        unshare(CloneFlags::CLONE_NEWNS).expect("mounts of one's own: these tests run as root");
        run(Command::new("mount").args(["--make-rprivate", "/"]));
        let folder = tempfile::tempdir().expect("a folder");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", &format!("size={mib}m"), "none"]);
        run(mount.arg(folder.path()));
        let image = None;
        Self { folder, image }
    }

    /// A file system with a journal of its own, which can be [cut off](Self::cut_off) from its device.
    pub(crate) fn that_can_be_cut_off() -> Self {
        let mut disk = Self::of(32);
        let image = disk.folder.path().join("image");
        let file = File::create(&image).expect("room for a file");
        file.set_len(256 << 20).expect("a file with nothing in it");
        let mut make = Command::new("mkfs.ext4");
        make.args(["-q", "-F", "-N", "1024", "-J", "size=4"]);
        run(make.arg(&image));
        disk.image = Some(image);
        fs::create_dir(disk.path()).expect("room for a folder");
        disk.mount();
        disk
    }

    /// The place for files.
    pub(crate) fn path(&self) -> PathBuf {
        match self.image {
            Some(_) => self.folder.path().join("inside"),
            None => self.folder.path().to_owned(),
        }
    }

    /// Takes what room there is, to the last byte.
    pub(crate) fn fill(&self) {
        let filler = OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.filler());
        let mut filler = filler.expect("a file");
        for block in [1 << 20, 4096, 1] {
            while filler.write(&vec![0; block]).is_ok() {}
        }
    }

    /// Gives it back.
    pub(crate) fn make_room(&self) {
        fs::remove_file(self.filler()).expect("it is full");
    }

    /// From now on every system call that writes or synchronises is told EIO.
    pub(crate) fn cut_off(&self) {
        /// `EXT4_IOC_SHUTDOWN` without writing anything more.
        const SHUT_DOWN: &str = "import fcntl, os, struct, sys
fcntl.ioctl(os.open(sys.argv[1], os.O_RDONLY), 0x8004587d, struct.pack('I', 2))";
        run(Command::new("python3")
            .args(["-c", SHUT_DOWN])
            .arg(self.path()));
    }

    /// Takes the device away, mends it and what is on it, and brings it back. Nobody may use it.
    pub(crate) fn replace(&self) {
        self.unmount();
        let mut check = Command::new("e2fsck");
        check.arg("-fy").args(&self.image);
        // It tells by its status that there was something to mend.
        check.output().expect("it starts");
        self.mount();
    }

    fn filler(&self) -> PathBuf {
        self.folder.path().join("filler")
    }

    fn mount(&self) {
        let mut mount = Command::new("mount");
        mount.args(["-o", "loop,noinit_itable"]).args(&self.image);
        run(mount.arg(self.path()));
    }

    fn unmount(&self) {
        run(Command::new("umount").arg(self.path()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Whatever a failed test has left there.
        for path in [self.path(), self.folder.path().to_owned()] {
            Command::new("umount").arg("-lq").arg(path).status().ok();
        }
    }
}

/// A cluster whose coordinator has its folder there, with two agents of two slots.
pub(crate) fn cluster_on(disk: &Disk) -> Cluster {
    let state = disk.path().join("state");
    let place = |made: &Path| {
        run(Command::new("cp").arg("-a").args([made, &state]));
        run(Command::new("sync").arg("-f").arg(&state));
    };
    let state = state.to_str().expect("a plain name");
    let mut cluster = Cluster::bare_on(place, &["--state", state, "--lease", "4s"]);
    cluster.add_agent("a1", 2);
    cluster.add_agent("a2", 2);
    cluster.await_hosts(2);
    cluster
}

/// Tasks, by their inputs, that leave a line in a folder, and print one.
pub(crate) struct Notes(TempDir);

impl Notes {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().expect("a folder"))
    }

    /// A command that runs until [`open`](Self::open) is called. Two that run for one input at a time tell of it.
    pub(crate) fn command(&self) -> String {
        let folder = self.0.path().display();
        format!(
            "cd {folder}; exec 9>>lock.{{}}; flock -n 9 || echo {{}} >> overlaps; echo {{}} >> begun.$FLEETPOOL_HOST; \
             until [ -e open ]; do sleep 0.02; done; echo out {{}}"
        )
    }

    /// Lets tasks end.
    pub(crate) fn open(&self) {
        fs::write(self.0.path().join("open"), "").expect("writable");
    }

    /// Inputs for which a task ran while another one did.
    pub(crate) fn overlaps(&self) -> String {
        fs::read_to_string(self.0.path().join("overlaps")).unwrap_or_default()
    }

    /// The inputs of all that has begun, in order: twice what ran twice.
    pub(crate) fn begun(&self) -> Vec<u64> {
        let files = fs::read_dir(self.0.path()).expect("a folder").flatten();
        let files = files.filter(|file| file.file_name().as_bytes().starts_with(b"begun."));
        let text: String = files
            .map(|file| fs::read_to_string(file.path()).expect("text"))
            .collect();
        let mut begun: Vec<u64> = text
            .lines()
            .map(|line| line.parse().expect("a number"))
            .collect();
        begun.sort_unstable();
        begun
    }
}

fn run(command: &mut Command) {
    let output = command.output().expect("it starts");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {said}");
}
