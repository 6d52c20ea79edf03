//! `leasehold config`: the settings as every program here would read them, and where each comes from.
use clap::Args;
use comfy_table::Cell;

use crate::arguments::{NotVia, Output, Source};
use crate::failure::Failure;
use crate::print::{self, Table, cell};

/// Which configuration to read.
#[derive(Args)]
#[command(after_help = "\
A flag wins over a variable, a variable over the file, and the file over the default. Passwords are left out.

Examples:
  leasehold config
  leasehold config --config /etc/leasehold.toml -o json")]
pub(crate) struct Arguments {
    #[command(flatten)]
    source: Source,
    /// `table` for people, `json` for programs.
    #[arg(short, long, value_enum, default_value = "table", help_heading = "Common options")]
    output: Output,
    #[command(flatten)]
    not_via: NotVia,
}

/// Prints the settings.
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failure> {
    arguments.not_via.check("it reads the configuration of this machine")?;
    let mut settings = arguments.source.settings()?;
    for setting in &mut settings {
        if let Some(url) = setting.value.as_str().filter(|_| setting.key == "redis_url") {
            setting.value = print::without_password(url).into();
        }
        if setting.key == "redis.sentinel_password" && !setting.value.is_null() {
            setting.value = "(set)".into();
        }
    }
    if arguments.output == Output::Json {
        return Ok(print::json_list("settings", &settings)?);
    }
    let mut table = Table::new(&["SETTING", "VALUE", "FROM"]).elastic(1);
    for setting in settings {
        let value = match &setting.value {
            serde_json::Value::Null => "–".to_owned(),
            serde_json::Value::String(text) => text.clone(),
            other => other.to_string(),
        };
        table.row(vec![Cell::new(setting.key), cell(value), cell(setting.from)]);
    }
    Ok(table.print()?)
}
