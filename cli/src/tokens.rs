//! `leasehold tokens`: tokens for the API. The file of `api.tokens` is edited by hand; this makes its lines.
use clap::Subcommand;
use clap::builder::PossibleValuesParser;
use leasehold::tokens::{Scope, mint};

use crate::failure::Failure;
use crate::print;

/// Make tokens for the API.
#[derive(Subcommand)]
pub(crate) enum Command {
    /// Make a token: its line for the file goes to standard output, itself to standard error, once.
    New {
        /// Who will use it, as logs show it.
        name: String,
        /// What it allows: read; submit (and read); admin (everything).
        #[arg(value_parser = PossibleValuesParser::new(Scope::ALL.map(Scope::as_str)))]
        scope: String,
    },
}

/// Runs the command.
pub(crate) fn run(command: Command) -> Result<(), Failure> {
    use std::io::Write;
    let Command::New { name, scope } = command;
    let scope = Scope::parse(&scope).expect("clap takes these words only");
    let (token, line) = mint(&name, scope).map_err(Failure::Usage)?;
    writeln!(std::io::stderr(), "token (not shown again): {token}")?;
    Ok(print::line(line)?)
}
