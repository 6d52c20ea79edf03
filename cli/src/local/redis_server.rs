//! A private Redis: the server program of this machine with the settings that are shipped.
use std::path::{Path, PathBuf};

use crate::failure::Failure;
use crate::local::child::Program;
use crate::local::port::Port;

/// The shipped settings, so that the binary needs no file beside it.
const SETTINGS: &str = include_str!("../../../redis.conf");
/// The oldest supported Redis.
const MAJOR_MIN: u32 = 7;

/// A private Redis, with a reserved port and a folder.
#[derive(Debug)]
pub(crate) struct RedisServer {
    /// How it is started.
    pub program: Program,
    /// Its version.
    pub version: String,
    port: Port,
}

impl RedisServer {
    /// Prepares one that listens on `port` and keeps its data in `folder`.
    pub(crate) async fn prepare(folder: &Path, log: PathBuf, port: Port) -> Result<Self, Failure> {
        let (path, version) = find().await?;
        let fault = |e: std::io::Error| Failure::Failed(format!("folder {}: {e}", folder.display()));
        std::fs::create_dir_all(folder).map_err(fault)?;
        let settings = folder.join("redis.conf");
        std::fs::write(&settings, SETTINGS).map_err(fault)?;
        let text = |path: &Path| path.display().to_string();
        let arguments = [text(&settings), "--port".into(), port.number().to_string(), "--dir".into(), text(folder)];
        let program = Program {
            name: "redis".into(),
            path,
            arguments: arguments.into(),
            environment: Vec::new(),
            private: true,
            folder: None,
            log,
        };
        Ok(Self { program, version, port })
    }

    /// Where it listens.
    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port.number())
    }
}

/// The server program, and its version.
async fn find() -> Result<(PathBuf, String), Failure> {
    let named = std::env::var_os("LEASEHOLD_REDIS_SERVER").filter(|name| !name.is_empty()).map(PathBuf::from);
    let names = named.clone().map_or_else(|| vec!["redis-server".into(), "valkey-server".into()], |name| vec![name]);
    for name in names {
        let asked = tokio::process::Command::new(&name).arg("--version").output().await;
        let Ok(answer) = asked else { continue };
        let answer = String::from_utf8_lossy(&answer.stdout).into_owned();
        let version = answer.split_whitespace().find_map(|word| word.strip_prefix("v=")).unwrap_or_default();
        let major = version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        return match major {
            Some(major) if major >= MAJOR_MIN => Ok((name, version.to_owned())),
            _ => Err(Failure::Failed(format!(
                "{} is {}, and Leasehold needs Redis {MAJOR_MIN}.0 or later; {}",
                name.display(),
                if version.is_empty() { "no Redis" } else { version },
                advice()
            ))),
        };
    }
    Err(Failure::Failed(match named {
        Some(name) => format!("LEASEHOLD_REDIS_SERVER names {}, which cannot be run", name.display()),
        None => format!("there is no redis-server on this machine; {}", advice()),
    }))
}

/// How to install Redis on this machine.
fn advice() -> String {
    let has = |program: &str| {
        let folders = std::env::var_os("PATH").unwrap_or_default();
        std::env::split_paths(&folders).any(|folder| folder.join(program).is_file())
    };
    let commands = [
        ("apt-get", "sudo apt-get install redis-server"),
        ("dnf", "sudo dnf install redis"),
        ("apk", "sudo apk add redis"),
        ("pacman", "sudo pacman -S redis"),
        ("brew", "brew install redis"),
    ];
    let command = commands.iter().find(|(program, _)| has(program)).map(|(_, command)| format!("run: {command} (or "));
    let elsewhere = "see https://redis.io/docs/latest/operate/oss_and_stack/install/";
    command.map_or_else(|| elsewhere.to_owned(), |command| format!("{command}{elsewhere})"))
}
