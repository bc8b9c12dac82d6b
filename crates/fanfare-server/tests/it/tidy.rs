//! House rules that a reviewer should not have to remember: they read the source files.

use std::fs;
use std::path::{Path, PathBuf};

/// Crates that are told the time and never meet a socket.
const CORE: &[&str] = &["fanfare-protocol", "fanfare-fanout", "fanfare-guard", "fanfare-registry"];

/// The longest a file may be before its tests. Past it a file has two duties.
const FILE_LINES_MAX: usize = 500;

#[test]
fn no_source_file_outgrows_a_reader() {
    for file in sources(&root()) {
        let lines = file.code.lines().count();
        assert!(
            lines <= FILE_LINES_MAX,
            "{} has {lines} lines before its tests; {FILE_LINES_MAX} is the bound: give one of its duties a file",
            file.path.display()
        );
    }
}

#[test]
fn core_crates_read_no_clock() {
    each_core_line(|place, line| {
        for clock in ["Instant::now", "SystemTime::now", "UNIX_EPOCH.elapsed"] {
            assert!(!line.contains(clock), "{place}: {clock}: core crates are told the time (now: Instant)");
        }
    });
}

#[test]
fn core_crates_await_nothing() {
    each_core_line(|place, line| {
        for word in [".await", "async fn", "async move", "thread::spawn", "thread::sleep"] {
            assert!(!line.contains(word), "{place}: {word}: core crates run no tasks and no threads");
        }
    });
}

#[test]
fn every_core_crate_bans_the_clock_in_its_own_clippy_toml() {
    for name in CORE {
        let path = root().join("crates").join(name).join("clippy.toml");
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        for ban in ["std::time::Instant::now", "std::time::SystemTime::now", "std::sync::Mutex"] {
            assert!(text.contains(ban), "{}: {ban} is not banned", path.display());
        }
    }
}

/// The directory of rooms is the one map that threads share. The edge may count connections per address in another.
#[test]
fn dashmap_is_named_where_it_belongs_and_its_guards_nowhere() {
    let may = ["crates/fanfare-registry/", "crates/fanfare-edge/"];
    for file in sources(&root()) {
        let path = file.relative();
        for (number, line) in file.code_lines() {
            let allowed = may.iter().any(|folder| path.starts_with(folder));
            assert!(allowed || !line.contains("DashMap"), "{path}:{number}: DashMap is named only in the registry");
            // Without its path a guard cannot be a field or leave a function: it ends with its statement or its block.
            assert!(!line.contains("mapref"), "{path}:{number}: a map guard is not passed on");
        }
    }
}

#[test]
fn every_crate_follows_the_lint_table() {
    for folder in crate_folders(&root()) {
        // The crates that may have `unsafe` repeat the table without that line.
        if folder.ends_with("fanfare-alloc") || folder.ends_with("fanfare-uring") {
            continue;
        }
        let manifest = folder.join("Cargo.toml");
        let text = fs::read_to_string(&manifest).unwrap_or_else(|error| panic!("{}: {error}", manifest.display()));
        assert!(text.contains("[lints]\nworkspace = true"), "{}: no [lints] workspace = true", manifest.display());
    }
}

#[test]
fn the_architecture_page_names_every_crate() {
    let page = read("docs/architecture.md");
    for folder in crate_folders(&root()) {
        let name = package(&folder);
        assert!(page.contains(&name), "docs/architecture.md does not name {name}");
    }
}

/// Whoever reads the hot path in the order of the table finds each step where it says.
#[test]
fn the_hot_path_s_table_names_functions_that_are_there() {
    let page = read("docs/architecture.md");
    let mut steps = 0;
    for row in section(&page, "## The hot path in a minute").lines() {
        let mut cells = row.split('|').map(str::trim).skip(1);
        let (Some(number), Some(files), Some(functions)) = (cells.next(), cells.next(), cells.next()) else { continue };
        if number.parse::<usize>().is_err() {
            continue;
        }
        steps += 1;
        let files: Vec<&str> = in_backticks(files).collect();
        let code: String = files.iter().map(|file| read_near(file, files[0])).collect();
        // What they do follows a colon.
        let named = functions.split("; ").filter_map(|part| part.split(": ").next());
        let functions: Vec<&str> = named.flat_map(in_backticks).collect();
        assert!(!functions.is_empty(), "step {number} names no function");
        for function in functions {
            let name = function.rsplit("::").next().unwrap_or(function);
            let is_there = [format!("fn {name}("), format!("fn {name}<")].iter().any(|head| code.contains(head));
            assert!(is_there, "docs/architecture.md, step {number}: {function} is not in {files:?}");
        }
    }
    assert!(steps > 5, "{steps} steps");
}

#[test]
fn the_codemap_names_files_that_are_there() {
    let page = read("docs/architecture.md");
    let mut seen = 0;
    for paragraph in section(&page, "## Codemap").split("\n\n") {
        let Some(name) = paragraph.strip_prefix("**`").and_then(|rest| rest.split('`').next()) else { continue };
        let folder = crate_folders(&root()).into_iter().find(|folder| package(folder) == name);
        let folder = folder.unwrap_or_else(|| panic!("docs/architecture.md: there is no crate {name}"));
        let files = files_below(&folder.join("src"));
        for named in in_backticks(paragraph).filter(|named| named.ends_with(".rs")) {
            seen += 1;
            let is_there = files.iter().any(|file| file.ends_with(named));
            assert!(is_there, "docs/architecture.md: {name} has no {named}");
        }
    }
    assert!(seen > 100, "{seen} files");
}

#[test]
fn tests_and_comments_are_not_code() {
    let check = |text: &str, expect: &[&str]| {
        let file = Source { path: PathBuf::new(), code: before_tests(text) };
        let lines: Vec<&str> = file.code_lines().map(|(_, line)| line.trim()).filter(|line| !line.is_empty()).collect();
        assert_eq!(lines, expect, "{text:?}");
    };
    check("use a;\n// Instant::now\nfn f() {} // DashMap\n", &["use a;", "fn f() {}"]);
    check("fn f() {}\n#[cfg(test)]\nmod tests {\n  Instant::now\n}\n", &["fn f() {}"]);
    check("#[cfg(test)]\nuse a;\nfn f() {}\n", &["#[cfg(test)]", "use a;", "fn f() {}"]);
    check("fn f() {}\n#[cfg(all(test, loom))]\n#[allow(x)]\nmod loom_tests;\n", &["fn f() {}"]);
    check("let url = \"ws://host\"; now();\n", &["let url = \"ws://host\"; now();"]);
}

fn read(path: &str) -> String {
    fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// What stands under a heading, up to the next of its rank.
fn section<'a>(page: &'a str, heading: &str) -> &'a str {
    let (_, rest) = page.split_once(heading).unwrap_or_else(|| panic!("docs/architecture.md has no {heading}"));
    rest.split("\n## ").next().unwrap_or(rest)
}

fn in_backticks(text: &str) -> impl Iterator<Item = &str> {
    text.split('`').skip(1).step_by(2)
}

/// A source file by the name that the page gives it: from its crate's short name on, or as seen from a folder on the way to `first`.
fn read_near(file: &str, first: &str) -> String {
    let crates = root().join("crates");
    let way = Path::new(first).ancestors().skip(1).map(|folder| folder.join(file));
    let mut candidates = std::iter::once(PathBuf::from(file)).chain(way);
    let found = candidates.find_map(|path| fs::read_to_string(crates.join(format!("fanfare-{}", path.display()))).ok());
    found.unwrap_or_else(|| panic!("docs/architecture.md names {file}, which is not there"))
}

/// The folder of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().nth(2).expect("the crate lies two folders below the workspace").to_owned()
}

struct Source {
    path: PathBuf,
    /// The text before the file's tests.
    code: String,
}

impl Source {
    fn relative(&self) -> String {
        self.path.strip_prefix(root()).unwrap_or(&self.path).to_string_lossy().into_owned()
    }

    /// Numbered lines with their comments cut off.
    fn code_lines(&self) -> impl Iterator<Item = (usize, &str)> {
        self.code.lines().enumerate().map(|(index, line)| (index + 1, without_comment(line)))
    }
}

/// The line up to its comment. A `//` after a colon is part of an address in a string.
fn without_comment(line: &str) -> &str {
    let mut from = 0;
    while let Some(at) = line[from..].find("//") {
        let at = from + at;
        if !line[..at].ends_with(':') {
            return &line[..at];
        }
        from = at + 2;
    }
    line
}

/// What stands above the first module that is compiled for tests only.
fn before_tests(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let opens_tests = |index: usize| {
        let is_test_only = lines[index].starts_with("#[cfg(test)]") || lines[index].starts_with("#[cfg(all(test");
        let item = lines[index + 1..].iter().find(|line| !line.starts_with("#["));
        is_test_only && item.is_some_and(|line| line.starts_with("mod ") || line.starts_with("pub(crate) mod "))
    };
    let end = (0..lines.len()).find(|&index| opens_tests(index)).unwrap_or(lines.len());
    lines[..end].join("\n")
}

fn each_core_line(check: impl Fn(String, &str)) {
    let files = sources(&root());
    for name in CORE {
        let folder = format!("crates/{name}/src/");
        let mut seen = 0;
        for file in files.iter().filter(|file| file.relative().starts_with(&folder)) {
            seen += 1;
            for (number, line) in file.code_lines() {
                check(format!("{}:{number}", file.relative()), line);
            }
        }
        assert!(seen > 0, "{folder} holds no source file");
    }
}

fn crate_folders(root: &Path) -> Vec<PathBuf> {
    let mut folders = vec![root.join("benches"), root.join("loadtest")];
    let entries = fs::read_dir(root.join("crates")).expect("the workspace has crates/");
    folders.extend(entries.map(|entry| entry.expect("a folder can be listed").path()).filter(|path| path.is_dir()));
    folders
}

/// The name in a crate's manifest.
fn package(folder: &Path) -> String {
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).expect("a crate has a manifest");
    let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).expect("a manifest has a name");
    name.trim_matches('"').to_owned()
}

fn files_below(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
        for path in entries.map(|entry| entry.expect("a folder can be listed").path()) {
            if path.is_dir() { folders.push(path) } else { files.push(path) }
        }
    }
    files
}

/// Every source file of the workspace that is not a test, cut before its tests.
fn sources(root: &Path) -> Vec<Source> {
    let mut files = Vec::new();
    let is_test = |path: &Path| {
        path.iter().any(|part| {
            let name = Path::new(part).file_stem().unwrap_or(part).to_string_lossy();
            name == "tests" || name.ends_with("_tests")
        })
    };
    for folder in crate_folders(root).iter().map(|folder| folder.join("src")) {
        for path in files_below(&folder) {
            let is_rust = path.extension().is_some_and(|extension| extension == "rs");
            if !is_rust || path.strip_prefix(&folder).is_ok_and(is_test) {
                continue;
            }
            let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
            files.push(Source { path, code: before_tests(&text) });
        }
    }
    files
}
