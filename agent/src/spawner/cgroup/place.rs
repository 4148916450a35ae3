//! Where a process's own cgroups are, computed from what `/proc` says.

use std::{
    ffi::OsString,
    os::unix::ffi::OsStringExt as _,
    path::{Path, PathBuf},
};

/// Of the kernel's interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Version {
    One,
    Two,
}

/// What can be limited here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Controller {
    Memory,
    Pids,
}

impl Controller {
    pub(super) const ALL: [Self; 2] = [Self::Memory, Self::Pids];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Pids => "pids",
        }
    }

    /// The file that has its limit.
    pub(super) fn limit(self, version: Version) -> &'static str {
        match (self, version) {
            (Self::Memory, Version::One) => "memory.limit_in_bytes",
            (Self::Memory, Version::Two) => "memory.max",
            (Self::Pids, _) => "pids.max",
        }
    }
}

/// A cgroup that a process is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) version: Version,
    /// What may be limited there. Of the second version: as far as it is switched on.
    pub(super) controllers: Vec<Controller>,
    pub(super) folder: PathBuf,
}

/// The process's cgroups by `/proc/PID/cgroup` and `/proc/PID/mountinfo`, each controller in one of them. What the first version does
/// not have is with the second.
pub(super) fn places(cgroup: &str, mountinfo: &str) -> Vec<Place> {
    let mut rest = Controller::ALL.to_vec();
    let mut places = Vec::new();
    let mut two = None;
    for line in cgroup.lines() {
        let mut parts = line.splitn(3, ':').skip(1);
        let (Some(names), Some(path)) = (parts.next(), parts.next()) else {
            continue;
        };
        if names.is_empty() {
            two = folder(mountinfo, "cgroup2", None, path);
            continue;
        }
        let has = |controller: &Controller| names.split(',').any(|name| name == controller.name());
        let (controllers, others): (Vec<_>, Vec<_>) = rest.into_iter().partition(has);
        rest = others;
        let place = |folder| Place {
            version: Version::One,
            controllers,
            folder,
        };
        let first = names.split(',').next();
        places.extend(folder(mountinfo, "cgroup", first, path).map(place));
    }
    places.retain(|place| !place.controllers.is_empty());
    places.extend(two.filter(|_| !rest.is_empty()).map(|folder| Place {
        version: Version::Two,
        controllers: rest,
        folder,
    }));
    places
}

/// Where the cgroup of that path is to be seen: below a mount of its tree, whose root may itself be further down.
fn folder(mountinfo: &str, kind: &str, controller: Option<&str>, path: &str) -> Option<PathBuf> {
    mountinfo.lines().find_map(|line| {
        let (mount, file_system) = line.split_once(" - ")?;
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (unescaped(fields.next()?), unescaped(fields.next()?));
        let mut fields = file_system.split(' ');
        let is_kind = fields.next() == Some(kind);
        let options = fields.nth(1).unwrap_or_default();
        let has = |name: &str| options.split(',').any(|option| option == name);
        let is_it = is_kind && controller.is_none_or(has);
        let below = Path::new(path).strip_prefix(root).ok()?;
        // Behind a namespace's root.
        let is_seen = !path.starts_with("/..");
        // Joined to nothing it would end in a slash.
        (is_it && is_seen).then(|| point.components().chain(below.components()).collect())
    })
}

/// Blanks and their like are octal numbers there.
fn unescaped(field: &str) -> PathBuf {
    let mut bytes = Vec::new();
    let mut rest = field.as_bytes();
    while let Some((&byte, behind)) = rest.split_first() {
        let octal = (byte == b'\\').then(|| field_octal(behind)).flatten();
        bytes.push(octal.unwrap_or(byte));
        rest = octal.map_or(behind, |_| &behind[3..]);
    }
    OsString::from_vec(bytes).into()
}

fn field_octal(digits: &[u8]) -> Option<u8> {
    let digits = std::str::from_utf8(digits.get(..3)?).ok()?;
    u8::from_str_radix(digits, 8).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Controller::{Memory, Pids};

    fn check(cgroup: &str, mountinfo: &str, expect: &[(Version, &[Controller], &str)]) {
        let place = |(version, controllers, folder): &(Version, &[Controller], &str)| Place {
            version: *version,
            controllers: controllers.to_vec(),
            folder: folder.into(),
        };
        let expect: Vec<Place> = expect.iter().map(place).collect();
        assert_eq!(places(cgroup, mountinfo), expect, "{cgroup}");
    }

    const V1: &str = "\
        23 1 0:22 / /sys rw - sysfs sysfs rw\n\
        31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
        32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw shared:3 - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /sys/fs/cgroup/memory rw shared:4 master:1 - cgroup cgroup rw,memory\n\
        39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids\n\
        40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,name=systemd\n";
    const UNIFIED: &str = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
    const V2: &str = "30 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";

    #[test]
    fn the_first_version_has_a_tree_a_controller() {
        let cgroup = "9:name=systemd:/\n8:pids:/\n4:memory:/a/b:c\n1:cpu,cpuacct:/\n";
        check(
            cgroup,
            V1,
            &[
                (Version::One, &[Pids], "/sys/fs/cgroup/pids"),
                (Version::One, &[Memory], "/sys/fs/cgroup/memory/a/b:c"),
            ],
        );
        let together = "1 0 0:1 / /cg rw - cgroup cgroup rw,pids,memory\n";
        let both = &[(Version::One, &[Memory, Pids] as &[_], "/cg/x")];
        check("4:pids,memory:/x\n", together, both);
    }

    #[test]
    fn a_hybrid_is_the_first_version_where_that_has_it() {
        let mounts = format!("{V1}{UNIFIED}");
        check(
            "8:pids:/\n4:memory:/\n0::/x\n",
            &mounts,
            &[
                (Version::One, &[Pids], "/sys/fs/cgroup/pids"),
                (Version::One, &[Memory], "/sys/fs/cgroup/memory"),
            ],
        );
        check(
            "8:pids:/\n0::/x\n",
            &mounts,
            &[
                (Version::One, &[Pids], "/sys/fs/cgroup/pids"),
                (Version::Two, &[Memory], "/sys/fs/cgroup/unified/x"),
            ],
        );
    }

    #[test]
    fn the_second_version_has_one_tree() {
        let unit = "/system.slice/fleetpool-spawner.service";
        let folder = format!("/sys/fs/cgroup{unit}");
        let both = [(Version::Two, &[Memory, Pids] as &[_], folder.as_str())];
        check(&format!("0::{unit}\n"), V2, &both);
    }

    #[test]
    fn what_is_mounted_may_be_a_part_of_a_tree() {
        let part = "1 0 0:1 /docker/1f /sys/fs/cg\\040roup ro - cgroup2 cgroup rw\n";
        let seen = |path: &str, folder: &str| {
            let expect = [(Version::Two, &[Memory, Pids] as &[_], folder)];
            check(&format!("0::{path}\n"), part, &expect);
        };
        seen("/docker/1f", "/sys/fs/cg roup");
        seen("/docker/1f/own", "/sys/fs/cg roup/own");
        check("0::/docker/2e\n", part, &[]);
        check("0::/../2e\n", V2, &[]);
        check("0::/\n", V1, &[]);
        check("", V2, &[]);
        check("nonsense\n8:pids\n", "nonsense\n1 2 3 4 5 - \n", &[]);
    }
}
