//! Clients and linters of others on the documents that the API serves: linters find no error, generators make clients,
//! and such a client submits jobs and reads them back. Needs the package registries of Python and npm.
use std::path::{Path, PathBuf};
use std::time::Duration;

use leasehold_tests::Process;
use tempfile::TempDir;

use crate::steered_command::Work;

/// How long a download of packages may take.
const DOWNLOAD_LIMIT: Duration = Duration::from_secs(300);
/// How long any other program may take.
const LIMIT: Duration = Duration::from_secs(120);

const PYTHON_PACKAGES: [&str; 1] = ["openapi-python-client==0.29.1"];
/// The newest that run on Node.js 18.
const NODE_PACKAGES: [&str; 4] =
    ["openapi-typescript@7.13.0", "typescript@5.9.3", "@redocly/cli@1.34.5", "@stoplight/spectral-cli@6.16.3"];

const SPECTRAL_RULES: &str = "extends: ['spectral:oas']\n";

/// A folder with the programs of others, where all their caches are too; it goes with the test.
struct Tools {
    folder: TempDir,
}

/// How a program ended, and all that it printed.
struct Ended {
    success: bool,
    output: String,
}

impl Tools {
    /// Installs the packages. The settings of pip and npm, which may name a mirror, are the user's; their caches are
    /// not.
    async fn install() -> Tools {
        let tools = Tools { folder: TempDir::with_prefix("leasehold-test-").unwrap() };
        for folder in ["python", "node", "home", "tmp"] {
            std::fs::create_dir(tools.path(folder)).unwrap();
        }
        tokio::join!(tools.install_python(), tools.install_node());
        tools
    }

    async fn install_python(&self) {
        let venv = self.path("venv").display().to_string();
        let made = self.run(Path::new("python3"), &["-m", "venv", &venv], &[], LIMIT).await;
        assert!(made.success, "python3 makes no venv (scripts/install-tools.sh venv installs it): {}", made.output);
        let mut arguments = vec!["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-cache-dir"];
        arguments.extend(PYTHON_PACKAGES);
        let installed = self.run(&self.path("venv/bin/python"), &arguments, &[], DOWNLOAD_LIMIT).await;
        let output = installed.output;
        assert!(installed.success, "pip cannot install {PYTHON_PACKAGES:?}; is the package index reachable? {output}");
    }

    async fn install_node(&self) {
        let (folder, cache) = (self.path("node").display().to_string(), self.path("npm").display().to_string());
        let mut arguments = vec!["install", "--prefix", &folder, "--cache", &cache, "--ignore-scripts"];
        arguments.extend(["--no-audit", "--no-fund", "--no-update-notifier"]);
        arguments.extend(NODE_PACKAGES);
        let installed = self.run(Path::new("npm"), &arguments, &[], DOWNLOAD_LIMIT).await;
        let output = installed.output;
        assert!(installed.success, "npm cannot install {NODE_PACKAGES:?}; is the registry reachable? {output}");
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// A path as an argument.
    fn argument(&self, name: &str) -> String {
        self.path(name).display().to_string()
    }

    async fn run(&self, program: &Path, arguments: &[&str], more: &[(&str, &str)], limit: Duration) -> Ended {
        let temporary = self.argument("tmp");
        let mut environment = vec![("TMPDIR", temporary.as_str())];
        environment.extend_from_slice(more);
        let process = Process::start(program, arguments, &environment);
        let success = process.wait_exit(limit).await.success();
        Ended { success, output: process.stdout() + &process.stderr() }
    }

    /// Runs an installed program.
    async fn tool(&self, program: &str, arguments: &[&str]) -> Ended {
        let path = format!("{}:{}", self.argument("venv/bin"), std::env::var("PATH").unwrap());
        let (home, python) = (self.argument("home"), self.argument("python"));
        let environment = [
            ("PATH", path.as_str()),
            ("HOME", &home),
            ("PYTHONPATH", &python),
            ("PYTHONDONTWRITEBYTECODE", "1"),
            ("NO_PROXY", "127.0.0.1"),
            ("REDOCLY_TELEMETRY", "off"),
            ("REDOCLY_SUPPRESS_UPDATE_NOTICE", "true"),
        ];
        self.run(&self.path(program), arguments, &environment, LIMIT).await
    }

    /// Runs an installed program, and expects that it succeeds.
    async fn succeed(&self, program: &str, arguments: &[&str]) {
        let ended = self.tool(program, arguments).await;
        assert!(ended.success, "{program} {arguments:?}: {}", ended.output);
    }

    async fn lint(&self, document: &str) {
        let document = self.argument(document);
        let rules = self.argument("rules.yaml");
        std::fs::write(&rules, SPECTRAL_RULES).unwrap();
        self.succeed("node/node_modules/.bin/spectral", &["lint", "--ruleset", &rules, &document]).await;
        self.succeed("node/node_modules/.bin/redocly", &["lint", "--extends", "recommended", &document]).await;
    }

    /// Generates a Python package.
    async fn generate_python(&self, document: &str, package: &str, strict: &[&str]) {
        let (document, package) = (self.argument(document), self.argument(package));
        let mut arguments = vec!["generate", "--path", &document, "--output-path", &package, "--meta", "none"];
        arguments.extend(strict);
        self.succeed("venv/bin/openapi-python-client", &arguments).await;
    }

    /// Type-checks a file of `clients/` beside the types of a document.
    async fn check_types(&self, text: &str, name: &str) -> Ended {
        let file = self.argument(&format!("node/{name}"));
        std::fs::write(&file, text).unwrap();
        let arguments = ["--noEmit", "--strict", "--target", "es2022", "--module", "esnext"];
        let arguments = [&arguments[..], &["--moduleResolution", "bundler", &file]].concat();
        self.tool("node/node_modules/.bin/tsc", &arguments).await
    }
}

#[tokio::test]
async fn generated_clients_submit_jobs_and_read_them_back() {
    let work = Work::start(&[]).await;
    work.open_gate();
    let api = work.system.api(&[]).await;
    api.wait_ready().await;
    let _worker = work.system.worker(&[]);
    let tools = Tools::install().await;
    for document in ["openapi.json", "openapi-views.json"] {
        std::fs::write(tools.path(document), api.get(&format!("/{document}")).await.text).unwrap();
        tools.lint(document).await;
    }

    tools.generate_python("openapi.json", "python/leasehold_client", &["--fail-on-warning"]).await;
    // It has no parser for JSON Lines and leaves out that response.
    tools.generate_python("openapi-views.json", "python/views_client", &[]).await;
    let script = tools.argument("submit.py");
    std::fs::write(&script, include_str!("clients/submit.py")).unwrap();
    tools.succeed("venv/bin/python", &[&script, &api.url("")]).await;

    for (document, types) in [("openapi.json", "node/api.ts"), ("openapi-views.json", "node/views-api.ts")] {
        let (document, types) = (tools.argument(document), tools.argument(types));
        tools.succeed("node/node_modules/.bin/openapi-typescript", &[&document, "--output", &types]).await;
    }
    for (text, name) in
        [(include_str!("clients/submit.ts"), "submit.ts"), (include_str!("clients/views.ts"), "views.ts")]
    {
        let checked = tools.check_types(text, name).await;
        assert!(checked.success, "{name}: {}", checked.output);
    }
    let refused = tools.check_types(include_str!("clients/empty.ts"), "empty.ts").await;
    let missing = "error TS2741: Property 'kind' is missing";
    assert!(!refused.success && refused.output.contains(missing), "{}", refused.output);
    work.system.finish().await;
}
