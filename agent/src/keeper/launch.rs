//! How a process comes to be below a keeper: by `posix_spawn`, which costs the same however large the host's
//! memory, and whose failure is told in words.

use std::{
    convert::Infallible,
    ffi::{CString, OsStr, OsString},
    fs::File,
    io,
    os::{
        fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt as _,
    },
    path::{Path, PathBuf},
};

use fleetpool_proto::command::{Piece, Word};
use nix::{
    errno::Errno,
    fcntl::{OFlag, open},
    spawn::{PosixSpawnAttr, PosixSpawnFileActions, PosixSpawnFlags, posix_spawn},
    sys::{signal::SigSet, stat::Mode},
    unistd::{AccessFlags, Pid, access, chdir, execve, fchdir},
};

use super::message::Place;
use crate::content::file_of;

/// Starts processes, each in a process group of its own, with default signals.
pub(crate) struct Launcher {
    attributes: PosixSpawnAttr,
    /// The folder the keeper was started in.
    home: OwnedFd,
    /// Whether the keeper is elsewhere now: a child begins where its parent is.
    away: bool,
    host: String,
    found: Option<Found>,
}

/// Where a command was found. It is not looked for again until it cannot be started from there, as in a shell.
struct Found {
    name: OsString,
    path: OsString,
    program: PathBuf,
}

/// A process to be.
pub(crate) struct Launch<'a> {
    /// Its words; the first names the program.
    pub(crate) argv: &'a [CString],
    /// Its variables.
    pub(crate) environment: &'a [CString],
    /// Where a program without a slash is looked for.
    pub(crate) path: &'a OsStr,
    /// Which of the keeper's descriptors it gets as which number; others it does not get.
    pub(crate) descriptors: &'a [(BorrowedFd<'a>, i32)],
    /// Its folder.
    pub(crate) cwd: Option<&'a Path>,
}

impl Launcher {
    pub(crate) fn new(host: String) -> io::Result<Self> {
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        Ok(Self {
            attributes: attributes()?,
            home: open(".", flags, Mode::empty())?,
            away: false,
            host,
            found: None,
        })
    }

    /// Starts it, or says why it cannot be.
    pub(crate) fn start(&mut self, launch: &Launch) -> Result<Pid, String> {
        self.enter(launch.cwd)?;
        let name = launch.argv.first().ok_or("there is no command to run")?;
        let name = OsStr::from_bytes(name.as_bytes());
        let found = self
            .found
            .as_ref()
            .filter(|found| found.is(name, launch.path));
        if let Some(found) = found
            && let Ok(pid) = self.spawn(&found.program, launch)
        {
            return Ok(pid);
        }
        let program = find(name, launch.path).ok_or_else(|| self.not_found(name))?;
        let pid = self
            .spawn(&program, launch)
            .map_err(|error| self.cannot_start(name, &program, error))?;
        self.found = Found::new(name, launch.path, program);
        Ok(pid)
    }

    /// Becomes it in place of this process, or says why it cannot.
    pub(crate) fn exec(&mut self, launch: &Launch) -> Result<Infallible, String> {
        self.enter(launch.cwd)?;
        let name = launch.argv.first().ok_or("there is no program to run")?;
        let name = OsStr::from_bytes(name.as_bytes());
        let program = find(name, launch.path).ok_or_else(|| self.not_found(name))?;
        let path =
            CString::new(program.as_os_str().as_bytes()).map_err(|_| self.not_found(name))?;
        execve(&path, launch.argv, launch.environment)
            .map_err(|error| self.cannot_start(name, &program, error))
    }

    fn spawn(&self, program: &Path, launch: &Launch) -> nix::Result<Pid> {
        let mut actions = PosixSpawnFileActions::init()?;
        for (from, to) in launch.descriptors {
            actions.add_dup2(from.as_raw_fd(), *to)?;
        }
        let Launch {
            argv, environment, ..
        } = launch;
        posix_spawn(program, &actions, &self.attributes, argv, environment)
    }

    fn enter(&mut self, cwd: Option<&Path>) -> Result<(), String> {
        if std::mem::take(&mut self.away) {
            fchdir(&self.home).map_err(|error| self.no_folder(Path::new("."), error))?;
        }
        if let Some(cwd) = cwd {
            self.away = true;
            chdir(cwd).map_err(|error| self.no_folder(cwd, error))?;
        }
        Ok(())
    }

    fn no_folder(&self, cwd: &Path, error: Errno) -> String {
        let (cwd, host) = (cwd.display(), &self.host);
        match error {
            Errno::ENOENT => {
                format!("no such folder `{cwd}` on host {host}: create it there, or run elsewhere")
            }
            Errno::ENOTDIR => format!("`{cwd}` on host {host} is not a folder to run in"),
            error => format!(
                "cannot enter the folder `{cwd}` on host {host}: {}",
                error.desc()
            ),
        }
    }

    fn not_found(&self, name: &OsStr) -> String {
        let (name, host) = (name.display(), &self.host);
        format!("no such command `{name}` on host {host}: install it there, or give its path")
    }

    fn cannot_start(&self, name: &OsStr, program: &Path, error: Errno) -> String {
        let (shown, host) = (name.display(), &self.host);
        match error {
            Errno::ENOENT if program.exists() => {
                format!(
                    "`{shown}` cannot run on host {host}: the interpreter that it names does not exist there"
                )
            }
            Errno::ENOENT | Errno::ENOTDIR => self.not_found(name),
            Errno::EACCES if program.is_dir() => {
                format!("`{shown}` on host {host} is a folder, not a command")
            }
            Errno::EACCES => {
                format!(
                    "`{shown}` may not be run on host {host}: make it executable for the agent's user"
                )
            }
            Errno::ENOEXEC => format!(
                "`{shown}` is nothing that host {host} can run: a script begins with a line such as #!/bin/sh"
            ),
            Errno::E2BIG => format!(
                "the arguments and variables of `{shown}` are too long for host {host}: pass less at once, or by a file"
            ),
            error => format!(
                "`{shown}` cannot be started on host {host}: {}",
                error.desc()
            ),
        }
    }
}

impl Found {
    /// `None` where what is found depends on more than the two.
    fn new(name: &OsStr, path: &OsStr, program: PathBuf) -> Option<Self> {
        let wherever = |folder: &[u8]| folder.first() != Some(&b'/');
        let depends = path.as_bytes().split(|&byte| byte == b':').any(wherever);
        let by_path = !name.as_bytes().contains(&b'/');
        (by_path && !depends).then(|| Self {
            name: name.into(),
            path: path.into(),
            program,
        })
    }

    fn is(&self, name: &OsStr, path: &OsStr) -> bool {
        self.name == name && self.path == path
    }
}

/// Signals as a fresh process expects them: this process blocks and ignores some, and the agent may have been
/// started by `nohup` or a shell's `&`. (To name all of them is cheaper, too: libc asks about those not named.)
fn attributes() -> nix::Result<PosixSpawnAttr> {
    let mut attributes = PosixSpawnAttr::init()?;
    attributes.set_sigdefault(&SigSet::all())?;
    attributes.set_sigmask(&SigSet::empty())?;
    attributes.set_pgroup(Pid::from_raw(0))?;
    attributes.set_flags(
        PosixSpawnFlags::POSIX_SPAWN_SETSIGDEF
            | PosixSpawnFlags::POSIX_SPAWN_SETSIGMASK
            | PosixSpawnFlags::POSIX_SPAWN_SETPGROUP,
    )?;
    Ok(attributes)
}

/// Where the program is: its own path when it has a slash, else the first executable of that name.
fn find(name: &OsStr, path: &OsStr) -> Option<PathBuf> {
    if name.as_bytes().contains(&b'/') {
        return Some(name.into());
    }
    if name.is_empty() {
        return None;
    }
    path.as_bytes()
        .split(|&byte| byte == b':')
        .map(|folder| {
            Path::new(OsStr::from_bytes(if folder.is_empty() {
                b"."
            } else {
                folder
            }))
            .join(name)
        })
        .find(|program| access(program, AccessFlags::X_OK).is_ok() && program.is_file())
}

/// A word with what only this host knows filled in.
pub(crate) fn fill(word: &Word, place: &Place) -> Result<CString, String> {
    let mut filled = Vec::new();
    for piece in &word.0 {
        match piece {
            Piece::Literal(bytes) => filled.extend_from_slice(bytes),
            Piece::Host => filled.extend_from_slice(place.host.as_bytes()),
            Piece::Slot => filled.extend_from_slice(place.slot.to_string().as_bytes()),
        }
    }
    CString::new(filled).map_err(|error| {
        let shown = String::from_utf8_lossy(&error.clone().into_vec()).into_owned();
        format!("the argument {shown:?} has a NUL byte in it, which no command can be given")
    })
}

/// Bytes that many processes can read as their standard input, each from the beginning.
pub(crate) struct Input(File);

impl From<OwnedFd> for Input {
    fn from(descriptor: OwnedFd) -> Self {
        Self(descriptor.into())
    }
}

impl Input {
    /// `None`: there is nothing to read.
    pub(crate) fn of(bytes: &[u8]) -> io::Result<Option<Self>> {
        if bytes.is_empty() {
            return Ok(None);
        }
        file_of(bytes).map(|file| Some(Self(file)))
    }

    /// A descriptor with a position of its own, that cannot be written to.
    pub(crate) fn open(&self) -> io::Result<File> {
        File::open(format!("/proc/self/fd/{}", self.0.as_fd().as_raw_fd()))
    }
}

#[cfg(test)]
mod tests {
    use serde_bytes::ByteBuf;

    use super::*;

    fn word(pieces: &[Piece]) -> Result<String, String> {
        let place = Place {
            host: "db-7".into(),
            slot: 12,
            ..Place::default()
        };
        fill(&Word(pieces.to_vec()), &place).map(|word| word.into_string().unwrap())
    }

    #[test]
    fn words_are_filled_in() {
        let literal = |text: &str| Piece::Literal(ByteBuf::from(text));
        assert_eq!(word(&[]), Ok(String::new()));
        assert_eq!(
            word(&[literal("a-"), Piece::Host, literal("/"), Piece::Slot]),
            Ok("a-db-7/12".into())
        );
        assert!(word(&[literal("a\0b")]).unwrap_err().contains("NUL"));
    }

    /// Runs a command to its end.
    fn run(launcher: &mut Launcher, name: &str, path: &OsStr) -> Result<(), String> {
        let pid = launcher.start(&Launch {
            argv: &[CString::new(name).unwrap()],
            environment: &[],
            path,
            descriptors: &[],
            cwd: None,
        })?;
        nix::sys::wait::waitpid(pid, None).unwrap();
        Ok(())
    }

    #[test]
    fn a_command_that_has_moved_is_found_again() {
        let folder = tempfile::tempdir().unwrap();
        let [here, there] = ["here", "there"].map(|name| folder.path().join(name));
        let path = std::env::join_paths([&here, &there]).unwrap();
        for dir in [&here, &there] {
            std::fs::create_dir(dir).unwrap();
        }
        let mut launcher = Launcher::new("host".into()).unwrap();
        std::os::unix::fs::symlink("/bin/true", here.join("x")).unwrap();
        run(&mut launcher, "x", &path).unwrap();
        assert_eq!(launcher.found.as_ref().unwrap().program, here.join("x"));
        std::fs::rename(here.join("x"), there.join("x")).unwrap();
        run(&mut launcher, "x", &path).unwrap();
        assert_eq!(launcher.found.as_ref().unwrap().program, there.join("x"));
        std::fs::remove_file(there.join("x")).unwrap();
        let reason = run(&mut launcher, "x", &path).unwrap_err();
        assert!(reason.contains("no such command"), "{reason}");
    }

    #[test]
    fn where_a_command_is_depends_on_the_folder_when_the_path_does() {
        let found = |name: &str, path: &str| {
            Found::new(OsStr::new(name), OsStr::new(path), "/bin/x".into()).is_some()
        };
        assert!(found("x", "/usr/bin:/bin"));
        assert!(!found("x", "/usr/bin:bin"));
        assert!(!found("x", "/usr/bin:"));
        assert!(!found("./x", "/usr/bin"));
    }

    #[test]
    fn programs_are_found_as_a_shell_does() {
        let path = OsStr::new("/nowhere:/usr/bin:/bin");
        assert_eq!(find(OsStr::new("./x"), path), Some("./x".into()));
        assert_eq!(find(OsStr::new("surely-no-such-command"), path), None);
        assert_eq!(find(OsStr::new(""), path), None);
        let sh = find(OsStr::new("sh"), path).unwrap();
        assert!(sh.is_absolute() && sh.ends_with("sh"));
    }
}
