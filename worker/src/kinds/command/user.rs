//! The user that commands run as, if it is not the worker's.
use std::ffi::OsString;
use std::io;
use std::os::unix::fs::lchown;
use std::os::unix::process::CommandExt;
use std::path::Path;

use nix::unistd::{Gid, Uid, User};

/// A user of this machine, from `worker.command_user`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct CommandUser {
    uid: u32,
    gid: u32,
    environment: Vec<(&'static str, OsString)>,
}

impl CommandUser {
    /// Reads `name`, `uid` or `uid:gid`.
    ///
    /// # Errors
    /// A sentence with what to write.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("worker.command_user is {text:?}: {why}"));
        if !Uid::effective().is_root() {
            return refuse("only a worker that runs as root can run commands as another user");
        }
        let number = |text: &str| text.parse::<u32>().ok().filter(|n| *n < u32::MAX);
        let (user, gid) = text.split_once(':').map_or((text, None), |(user, gid)| (user, Some(gid)));
        let found = match number(user) {
            Some(uid) => User::from_uid(Uid::from_raw(uid)),
            None => User::from_name(user),
        };
        let found = found.map_err(|e| format!("worker.command_user: the users cannot be read: {e}"))?;
        let gid = match (gid.map(number), &found) {
            (Some(Some(gid)), _) => Gid::from_raw(gid),
            (None, Some(user)) => user.gid,
            (Some(None), _) => return refuse("the group is not a number"),
            (None, None) => return refuse("there is no such user; write a name, or uid:gid"),
        };
        let Some(uid) = found.as_ref().map(|user| user.uid.as_raw()).or(number(user)) else {
            return refuse("there is no such user; write a name, or uid:gid");
        };
        if uid == 0 || gid.as_raw() == 0 {
            return refuse("commands would run as root");
        }
        let environment = found.map_or(Vec::new(), |user| {
            vec![("HOME", user.dir.into()), ("USER", user.name.clone().into()), ("LOGNAME", user.name.into())]
        });
        Ok(Self { uid, gid: gid.as_raw(), environment })
    }

    /// Lets the command run as this user, without supplementary groups.
    pub fn apply(&self, command: &mut std::process::Command) {
        command.uid(self.uid).gid(self.gid).envs(self.environment.iter().map(|(name, value)| (name, value)));
    }

    /// Gives the user a scratch folder that has just been filled.
    ///
    /// # Errors
    /// The system's error.
    pub fn give(&self, folder: &Path) -> io::Result<()> {
        for entry in std::fs::read_dir(folder)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                self.give(&entry.path())?;
            } else {
                lchown(entry.path(), Some(self.uid), Some(self.gid))?;
            }
        }
        lchown(folder, Some(self.uid), Some(self.gid))
    }
}
