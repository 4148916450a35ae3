//! Files and folders on their way: packed here or on a host, unpacked at the other end.
//!
//! An archive is a tar whose first names are those of what was asked for. At a host's end this program is started again, as a task like any
//! other. What is unpacked takes the place of what was there file by file, each whole or not at all; nothing is written outside the
//! folder that was named.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, Permissions},
    io::{self, BufReader, Read, Write},
    os::unix::fs::PermissionsExt as _,
    path::{Component, Path, PathBuf},
    process::exit,
};

use tar::{Archive, Builder, Entry, EntryType};

/// This very program at the other end: whoever runs commands there is made of it.
pub(crate) const PROGRAM: &str = "/proc/self/exe";
/// The hidden first arguments that make this process one end.
pub(crate) const UNPACK_VERB: &str = "__fleetpool-unpack";
pub(crate) const PACK_VERB: &str = "__fleetpool-pack";

/// Bytes of a file that are read and written at once.
const COPY_BYTES: usize = 256 << 10;

/// Packs or unpacks, and never returns, when this process was started for that.
pub(crate) fn run_if_asked() {
    let mut args = std::env::args_os().skip(1);
    let verb = args.next().unwrap_or_default();
    let done = match verb.to_str() {
        Some(UNPACK_VERB) => unpack_here(args.collect()),
        Some(PACK_VERB) => pack_here(args.collect()),
        _ => return,
    };
    if let Err(error) = done {
        let _ = writeln!(io::stderr(), "{error}");
        exit(1);
    }
    exit(0)
}

/// `unpack COUNT DEST`: as `cp` would copy so many things from stdin to DEST.
fn unpack_here(args: Vec<OsString>) -> io::Result<()> {
    let [count, dest] = &args[..] else {
        return Err(io::Error::other("unpack is told a number and a place"));
    };
    let many = count != "1" || dest.as_encoded_bytes().ends_with(b"/");
    let dest = at_home(Path::new(dest));
    unpack(io::stdin().lock(), &dest, many || dest.is_dir())
}

/// `pack SRC...`: to stdout.
fn pack_here(args: Vec<OsString>) -> io::Result<()> {
    let sources: Vec<PathBuf> = args.iter().map(|arg| at_home(Path::new(arg))).collect();
    pack(io::stdout().lock(), &sources).map(drop)
}

/// A relative path is meant from the home of whoever the task is.
fn at_home(path: &Path) -> PathBuf {
    let relative = path.strip_prefix("~").unwrap_or(path);
    std::env::home_dir().map_or_else(|| relative.to_owned(), |home| home.join(relative))
}

/// Packs files and folders, each under its own name, the content of folders by name.
///
/// # Errors
/// When one cannot be read, or has the name of another; says which.
pub(crate) fn pack<W: Write>(to: W, sources: &[PathBuf]) -> io::Result<W> {
    let mut builder = Builder::new(to);
    builder.follow_symlinks(false);
    let mut names: Vec<OsString> = Vec::new();
    for source in sources {
        let name = name_of(source)?;
        if names.contains(&name) {
            return Err(io::Error::other(format!(
                "two of the sources are called {}",
                name.display()
            )));
        }
        // What is named is meant, be it by a link; within a folder links stay links.
        let real = fs::canonicalize(source).map_err(at(source))?;
        add(&mut builder, &real, Path::new(&name))?;
        names.push(name);
    }
    builder.into_inner()
}

/// What a path is called, also where it is `.` or ends in `..`.
fn name_of(path: &Path) -> io::Result<OsString> {
    if let Some(name) = path.file_name() {
        return Ok(name.to_owned());
    }
    let real = fs::canonicalize(path).map_err(at(path))?;
    let name = real.file_name().map(OsStr::to_owned);
    name.ok_or_else(|| io::Error::other(format!("{} has no name to be called by", path.display())))
}

fn add<W: Write>(builder: &mut Builder<W>, path: &Path, name: &Path) -> io::Result<()> {
    let meta = fs::symlink_metadata(path).map_err(at(path))?;
    let kind = meta.file_type();
    if !kind.is_dir() && !kind.is_file() && !kind.is_symlink() {
        // A socket or a device cannot be brought anywhere.
        return Ok(());
    }
    builder
        .append_path_with_name(path, name)
        .map_err(at(path))?;
    if kind.is_dir() {
        let entries = fs::read_dir(path).map_err(at(path))?;
        let mut entries = entries.collect::<io::Result<Vec<_>>>().map_err(at(path))?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            add(builder, &entry.path(), &name.join(entry.file_name()))?;
        }
    }
    Ok(())
}

/// Unpacks into the folder `dest`, or, for one thing, as `dest`.
///
/// # Errors
/// When something cannot be written, or the archive names a place outside; says which.
pub(crate) fn unpack(from: impl Read, dest: &Path, into: bool) -> io::Result<()> {
    if into {
        fs::create_dir_all(dest).map_err(at(dest))?;
    } else if let Some(parent) = dest.parent().filter(|parent| !parent.exists()) {
        return Err(io::Error::other(format!(
            "there is no folder {}",
            parent.display()
        )));
    }
    let mut archive = Archive::new(from);
    let mut folders = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let name = entry.path()?.into_owned();
        let path = place(dest, into, &name)?;
        check_way(dest, &path)?;
        put(&mut entry, &path, &mut folders).map_err(at(&path))?;
    }
    // The innermost first, when nothing more is to be written into them.
    for (path, mode) in folders.into_iter().rev() {
        fs::set_permissions(&path, Permissions::from_mode(mode)).map_err(at(&path))?;
    }
    Ok(())
}

/// Where an entry goes: its name consists of names alone.
fn place(dest: &Path, into: bool, name: &Path) -> io::Result<PathBuf> {
    let mut parts = name.components();
    let plain = |part: &Component| matches!(part, Component::Normal(_));
    if !parts.clone().all(|part| plain(&part)) {
        return Err(io::Error::other(format!(
            "the archive names {}, which is no place within it",
            name.display()
        )));
    }
    if !into {
        parts.next();
    }
    let rest = parts.as_path();
    Ok(if rest.as_os_str().is_empty() {
        dest.to_owned()
    } else {
        dest.join(rest)
    })
}

/// No link stands between `dest` and `path`, of this archive or of an earlier one: it could lead anywhere.
fn check_way(dest: &Path, path: &Path) -> io::Result<()> {
    let below = path.ancestors().skip(1);
    for folder in below.take_while(|folder| *folder != dest && folder.starts_with(dest)) {
        if fs::symlink_metadata(folder).is_ok_and(|meta| meta.is_symlink()) {
            return Err(io::Error::other(format!(
                "{} is a link, and nothing is written by way of one",
                folder.display()
            )));
        }
    }
    Ok(())
}

fn put<R: Read>(
    entry: &mut Entry<'_, R>,
    path: &Path,
    folders: &mut Vec<(PathBuf, u32)>,
) -> io::Result<()> {
    // As cp does: nobody else's file runs as its owner here.
    let mode = entry.header().mode()? & 0o777;
    match entry.header().entry_type() {
        EntryType::Directory => {
            if !fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir()) {
                fs::create_dir(path)?;
            }
            fs::set_permissions(path, Permissions::from_mode(mode | 0o700))?;
            folders.push((path.to_owned(), mode));
            Ok(())
        }
        EntryType::Symlink => {
            let target = entry.link_name()?.unwrap_or_default().into_owned();
            let part = beside(path);
            std::os::unix::fs::symlink(target, &part)?;
            fs::rename(&part, path)
        }
        EntryType::Regular => {
            let part = beside(path);
            let written = write(entry, &part, mode);
            written
                .and_then(|()| fs::rename(&part, path))
                .inspect_err(|_| drop(fs::remove_file(&part)))
        }
        _ => Ok(()),
    }
}

fn write(from: &mut impl Read, part: &Path, mode: u32) -> io::Result<()> {
    let mut file = File::create_new(part)?;
    io::copy(&mut BufReader::with_capacity(COPY_BYTES, from), &mut file)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.sync_all()
}

/// A name in the same folder that nobody else uses.
fn beside(path: &Path) -> PathBuf {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(format!(".{}.part", std::process::id()));
    path.with_file_name(name)
}

/// Says where it happened.
fn at(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    let path = path.to_owned();
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use tempfile::TempDir;

    use super::*;

    fn tree() -> TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("site/empty")).unwrap();
        fs::write(dir.path().join("site/run.sh"), "#!/bin/sh\n").unwrap();
        fs::set_permissions(
            dir.path().join("site/run.sh"),
            Permissions::from_mode(0o750),
        )
        .unwrap();
        symlink("run.sh", dir.path().join("site/link")).unwrap();
        fs::write(dir.path().join("one"), b"a\0b").unwrap();
        dir
    }

    fn packed(dir: &TempDir, names: &[&str]) -> Vec<u8> {
        let sources: Vec<_> = names.iter().map(|name| dir.path().join(name)).collect();
        pack(Vec::new(), &sources).unwrap()
    }

    #[test]
    fn a_folder_arrives_as_it_was() {
        let (from, to) = (tree(), tempfile::tempdir().unwrap());
        let archive = packed(&from, &["site", "one"]);
        assert_eq!(archive, packed(&from, &["site", "one"]), "the same again");
        for _ in 0..2 {
            unpack(&archive[..], to.path(), true).unwrap();
            let at = |name: &str| to.path().join(name);
            assert_eq!(fs::read(at("one")).unwrap(), b"a\0b");
            assert!(at("site/empty").is_dir());
            assert_eq!(
                fs::metadata(at("site/run.sh"))
                    .unwrap()
                    .permissions()
                    .mode()
                    & 0o777,
                0o750
            );
            assert_eq!(fs::read_link(at("site/link")).unwrap(), Path::new("run.sh"));
            assert_eq!(
                fs::read_dir(to.path()).unwrap().count(),
                2,
                "no part is left"
            );
        }
    }

    #[test]
    fn one_thing_may_get_another_name() {
        let (from, to) = (tree(), tempfile::tempdir().unwrap());
        unpack(&packed(&from, &["one"])[..], &to.path().join("two"), false).unwrap();
        unpack(&packed(&from, &["site"])[..], &to.path().join("www"), false).unwrap();
        assert_eq!(fs::read(to.path().join("two")).unwrap(), b"a\0b");
        assert!(to.path().join("www/run.sh").is_file());
        let error = unpack(
            &packed(&from, &["one"])[..],
            &to.path().join("no/where"),
            false,
        )
        .unwrap_err();
        assert!(error.to_string().contains("there is no folder "), "{error}");
    }

    #[test]
    fn what_leads_outside_is_refused() {
        let to = tempfile::tempdir().unwrap();
        for name in ["../out", "/etc/out", "a/../../out"] {
            assert!(place(to.path(), true, Path::new(name)).is_err(), "{name}");
        }
        // A link, and then something behind it: at the top, in a folder, and in a folder that is there already.
        let outside = tempfile::tempdir().unwrap();
        fs::create_dir(outside.path().join("deep")).unwrap();
        for (link, behind) in [
            ("link", "link/out"),
            ("d/link", "d/link/out"),
            ("d/link", "d/link/deep/out"),
        ] {
            let to = tempfile::tempdir().unwrap();
            fs::create_dir(to.path().join("d")).unwrap();
            let mut builder = Builder::new(Vec::new());
            let mut header = tar::Header::new_gnu();
            header.set_mode(0o4755);
            header.set_size(0);
            header.set_entry_type(EntryType::Symlink);
            builder
                .append_link(&mut header.clone(), link, outside.path())
                .unwrap();
            header.set_entry_type(EntryType::Regular);
            builder
                .append_data(&mut header, behind, io::empty())
                .unwrap();
            let archive = builder.into_inner().unwrap();
            let error = unpack(&archive[..], to.path(), true).unwrap_err();
            assert!(error.to_string().contains("is a link"), "{error}");
            assert!(!outside.path().join("out").exists());
            assert!(!outside.path().join("deep/out").exists());
        }
    }

    #[test]
    fn what_is_not_there_is_named() {
        let error = pack(Vec::new(), &[PathBuf::from("/no/such")]).unwrap_err();
        assert!(error.to_string().starts_with("/no/such: "), "{error}");
    }
}
