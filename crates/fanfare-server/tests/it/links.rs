//! What the pages promise to be somewhere is there: every link to a file, and to a heading of it.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().expect("the workspace")
}

/// Every page of Markdown that is part of the sources.
fn pages() -> Vec<PathBuf> {
    let mut pages = Vec::new();
    let mut folders = vec![root()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if path.is_dir() {
                if !name.starts_with('.') && !["target", "node_modules", "dist", "corpus"].contains(&name) {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|kind| kind == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    pages
}

/// The lines of a page that are not in a block of code, without what is code within them.
fn prose(page: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    let mut is_code = false;
    page.lines().enumerate().filter_map(move |(index, line)| {
        if line.trim_start().starts_with("```") {
            is_code = !is_code;
            return None;
        }
        let plain = line.split('`').step_by(2).collect::<Vec<_>>().join("``");
        (!is_code).then_some((index + 1, plain))
    })
}

/// The targets of `[text](target)` in a line.
fn targets(line: &str) -> Vec<String> {
    let starts = line.match_indices("](").map(|(at, _)| &line[at + 2..]);
    starts.filter_map(|rest| rest.split_once(')').map(|(target, _)| target.to_owned())).collect()
}

/// The names by which a page's headings can be linked to, as GitHub makes them.
fn anchors(page: &str) -> Vec<String> {
    let mut seen = HashMap::<String, usize>::new();
    let mut is_code = false;
    let mut anchors = Vec::new();
    for line in page.lines() {
        is_code ^= line.trim_start().starts_with("```");
        let Some(title) = line.strip_prefix('#').filter(|_| !is_code) else { continue };
        let title = title.trim_start_matches('#').trim().to_lowercase();
        let kept = title.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        let name: String = kept.map(|c| if c == ' ' { '-' } else { c }).collect();
        let count = seen.entry(name.clone()).or_default();
        anchors.push(if *count == 0 { name } else { format!("{name}-{count}") });
        *count += 1;
    }
    anchors
}

/// What is wrong with a link of `page`.
fn fault(page: &Path, target: &str) -> Option<String> {
    if target.contains("://") || target.starts_with("mailto:") {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = if file.is_empty() { page.to_owned() } else { page.parent().expect("its folder").join(file) };
    if !path.exists() {
        return Some(format!("{target}: there is no such file"));
    }
    let is_page = path.extension().is_some_and(|kind| kind == "md");
    if anchor.is_empty() || !is_page {
        return None;
    }
    let there = anchors(&fs::read_to_string(&path).expect("a page"));
    (!there.iter().any(|name| name == anchor)).then(|| format!("{target}: no heading of that page is called so"))
}

#[test]
fn every_link_leads_somewhere() {
    let mut faults = Vec::new();
    let mut links = 0;
    for page in pages() {
        let text = fs::read_to_string(&page).expect("a page");
        for (number, line) in prose(&text) {
            for target in targets(&line) {
                links += 1;
                let fault = fault(&page, &target);
                let place = page.strip_prefix(root()).unwrap_or(&page).display().to_string();
                faults.extend(fault.map(|fault| format!("{place}:{number}: {fault}")));
            }
        }
    }
    assert!(links > 100, "only {links} links were found");
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn headings_are_linked_to_as_github_does() {
    let page = "# A `b`: c, d?\n```\n# no heading\n```\n## When it is refused\n## When it is refused\n";
    assert_eq!(anchors(page), ["a-b-c-d", "when-it-is-refused", "when-it-is-refused-1"]);
    assert_eq!(targets("see [a](b.md#c) and ![d](e.png), not (f)"), ["b.md#c", "e.png"]);
    let lines: Vec<_> = prose("a `[x](y)` b\n```\n[z](w)\n```\n[q](r)").collect();
    assert_eq!(lines, [(1, "a `` b".to_owned()), (5, "[q](r)".to_owned())]);
}

#[test]
fn the_javascript_client_carries_the_licences() {
    for name in ["LICENSE", "LICENSE-APACHE", "LICENSE-MIT"] {
        let read =
            |path: PathBuf| fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert!(read(root().join(name)) == read(root().join("clients/js").join(name)), "clients/js/{name} differs");
    }
}
