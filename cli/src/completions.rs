//! `leasehold completions`: completion scripts for shells.
use std::io::Write;

use clap_complete::Shell;

use crate::failure::Failure;

/// For which shell.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  leasehold completions bash > ~/.local/share/bash-completion/completions/leasehold
  leasehold completions zsh > ~/.zfunc/_leasehold          (with ~/.zfunc in fpath)
  leasehold completions fish > ~/.config/fish/completions/leasehold.fish")]
pub(crate) struct Arguments {
    /// The shell.
    #[arg(value_enum)]
    shell: Shell,
}

/// Writes them.
pub(crate) fn run(arguments: &Arguments, command: &mut clap::Command) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(arguments.shell, command, "leasehold", &mut script);
    Ok(std::io::stdout().lock().write_all(&script)?)
}
