//! The kinds a worker serves besides its program's handlers: the commands of the kinds file, and the built-in kinds.
#[cfg(feature = "audio")]
pub mod analyze_audio;
pub(crate) mod command;
#[cfg(feature = "web")]
pub mod gap_analysis;
pub mod process_files;

use std::io::{self, Read};
use std::sync::Arc;

use leasehold::{Config, Kind, Kinds};

use crate::error::{self, Error};
use crate::handler::Registry;
use crate::reader::{self, Readers};
use command::{Command, Launcher};

/// The built-in kinds: the first is served if there is a document root, the others if the kinds file names them.
const PROCESS_FILES: &str = "process-files";
const ANALYZE_AUDIO: &str = "analyze-audio";
const GAP_ANALYSIS: &str = "gap-analysis";
const BUILT_IN: [&str; 3] = [PROCESS_FILES, ANALYZE_AUDIO, GAP_ANALYSIS];

/// The built-in kinds that this build lacks, by its cargo features.
const LEFT_OUT: &[&str] = &[
    #[cfg(not(feature = "audio"))]
    ANALYZE_AUDIO,
    #[cfg(not(feature = "web"))]
    GAP_ANALYSIS,
];

/// Reads one document and exits, if a worker has started this process for that; otherwise returns at once.
///
/// Documents are read in processes of their own, and each of them is the worker's own program, started again. Call this
/// first in `main`, before anything else is done or started: without it the kinds `process-files` and `gap-analysis`
/// cannot be served. A program without these kinds does not need it.
pub fn become_reader() {
    reader::run_if_reader(|task, argument, document, progress| read(task, argument, document, progress));
}

/// The reader's work.
#[cfg_attr(not(feature = "web"), allow(unused_variables))]
fn read(task: &str, argument: &str, document: &mut dyn Read, progress: &mut dyn FnMut(f64)) -> io::Result<String> {
    match task {
        process_files::TASK => process_files::work(document, progress),
        #[cfg(feature = "web")]
        gap_analysis::TASK => gap_analysis::work(argument, document),
        _ => Err(io::Error::other(format!("there is no task {task:?}"))),
    }
}

/// Refuses a kind that reads documents in a program that does not become a reader.
fn require_reader(kind: &str) -> Result<(), Error> {
    if reader::is_ready() {
        return Ok(());
    }
    Err(error::config(format!(
        "the built-in kind {kind} reads documents in processes of their own, which this program does not become; call \
         leasehold_worker::become_reader() first in its main"
    )))
}

/// Registers the commands of the kinds file and the built-in kinds. Every kind in the file must have a handler then.
pub(crate) fn register(registry: &mut Registry, kinds: &Kinds, config: &Config) -> Result<(), Error> {
    let launcher = Arc::new(Launcher::new(config).map_err(error::config)?);
    for (kind, settings) in kinds.iter() {
        if let Some(words) = &settings.command {
            let command = Command::new(words, kinds.dir(), config, &launcher).cached(settings.cache.clone());
            registry.add_dyn(kind.clone(), Arc::new(command)).map_err(error::config)?;
        }
    }
    let readers = Arc::new(Readers::new());
    let built_in = Kind::parse(PROCESS_FILES).expect("a constant");
    if registry.get(&built_in).is_none() {
        match &config.document_root {
            Some(root) => {
                require_reader(PROCESS_FILES)?;
                process_files::serve(registry, built_in, root, config, &readers)?;
            }
            None if kinds.contains(&built_in) => {
                return Err(error::config(format!(
                    "the kinds file configures the built-in kind {PROCESS_FILES}, which needs a document root; set \
                     LEASEHOLD_DOCUMENT_ROOT to the folder of the documents, or remove [kinds.{PROCESS_FILES}]"
                )));
            }
            None => {}
        }
    }
    let is_wanted = |registry: &Registry, kind: &Kind| kinds.contains(kind) && registry.get(kind).is_none();
    let audio = Kind::parse(ANALYZE_AUDIO).expect("a constant");
    if is_wanted(registry, &audio) {
        #[cfg(feature = "audio")]
        registry.add(audio, analyze_audio::run, &config.limits).map_err(error::config)?;
        #[cfg(not(feature = "audio"))]
        warn_left_out(&audio, "audio");
    }
    let gaps = Kind::parse(GAP_ANALYSIS).expect("a constant");
    if is_wanted(registry, &gaps) {
        #[cfg(feature = "web")]
        {
            require_reader(GAP_ANALYSIS)?;
            let fetcher = crate::fetch::Fetcher::new(config.fetch.allow_private);
            let handler = move |context: crate::Context, payload| {
                gap_analysis::run(fetcher.clone(), Arc::clone(&readers), context, payload)
            };
            registry.add(gaps, handler, &config.limits).map_err(error::config)?;
        }
        #[cfg(not(feature = "web"))]
        warn_left_out(&gaps, "web");
    }
    let is_left_out = |kind: &Kind| LEFT_OUT.contains(&kind.as_str());
    let unknown = kinds.iter().map(|(kind, _)| kind).find(|kind| registry.get(kind).is_none() && !is_left_out(kind));
    let Some(unknown) = unknown else { return Ok(()) };
    let mut known: Vec<&str> = registry.kinds().map(Kind::as_str).collect();
    known.extend(BUILT_IN.iter().filter(|kind| !registry.kinds().any(|served| served.as_str() == **kind)));
    Err(error::config(format!(
        "the kinds file names {unknown} without a command, and this worker has no handler for it; add a command, or use one of \
         the kinds it has: {}",
        known.join(", ")
    )))
}

/// Logs that jobs of the kind will wait for a worker that has it.
#[cfg(not(all(feature = "audio", feature = "web")))]
fn warn_left_out(kind: &Kind, feature: &str) {
    tracing::warn!(
        "this build does not have the built-in kind {kind}, so its jobs wait for a worker that does; \
         build with the cargo feature `{feature}`"
    );
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::Context;
    use crate::failure::{Done, Failure};

    fn registered(kinds: &str, config: &Config) -> Result<Vec<String>, String> {
        become_reader();
        let kinds = Kinds::parse(kinds, PathBuf::from("/")).expect("a kinds file");
        let mut registry = Registry::default();
        let handler = async |_: Context, (): ()| -> Result<Done<()>, Failure> { Ok(().into()) };
        registry.add(Kind::parse("mine").unwrap(), handler, &config.limits).unwrap();
        register(&mut registry, &kinds, config).map_err(|e| e.to_string())?;
        Ok(registry.kinds().map(Kind::to_string).collect())
    }

    fn rooted() -> Config {
        Config { document_root: Some(std::env::temp_dir()), ..Config::default() }
    }

    #[test]
    fn commands_handlers_and_what_is_built_in_are_served() {
        let kinds = "[kinds.a]\ncommand = [\"true\"]\n[kinds.mine]\nmax_attempts = 2\n[kinds.process-files]\n[kinds.analyze-audio]\n[kinds.gap-analysis]\n";
        let served = ["a", "analyze-audio", "gap-analysis", "mine", "process-files"];
        assert_eq!(registered(kinds, &rooted()), Ok(served.map(String::from).to_vec()));
        assert_eq!(registered("", &Config::default()), Ok(vec!["mine".into()]));
    }

    #[test]
    fn a_kind_that_nothing_runs_is_refused_by_name() {
        let error = registered("[kinds.typo]", &rooted()).expect_err("nothing runs it");
        assert!(
            error.contains("names typo without a command")
                && error.contains("mine, process-files, analyze-audio, gap-analysis"),
            "{error}"
        );
        let error = registered("[kinds.process-files]", &Config::default()).expect_err("no root");
        assert!(error.contains("LEASEHOLD_DOCUMENT_ROOT"), "{error}");
        let twice = registered("[kinds.mine]\ncommand = [\"true\"]", &Config::default()).expect_err("two handlers");
        assert!(twice.contains("mine has two handlers"), "{twice}");
        let away = Config { document_root: Some("/no/such/folder".into()), ..Config::default() };
        assert!(
            registered("", &away).expect_err("no folder").contains("document_root /no/such/folder is not a folder")
        );
    }
}
