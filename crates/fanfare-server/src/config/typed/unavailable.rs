//! Keys that are known and refused.

use crate::config::Problem;
use crate::config::raw::{DEFAULT_NAMESPACE, NAMESPACES, Raw, key_path, namespace_path};

/// Keys whose feature is not in this version: any value but the default is refused, so that nobody relies on a
/// promise that is not kept. `*` stands for any namespace. Whoever builds the feature deletes the row.
pub(in crate::config) const UNAVAILABLE: &[(&str, &str)] = &[];

/// Whether any value but the default of this key is refused.
pub(in crate::config) fn is_unavailable(section: &str, key: &str) -> bool {
    let section = if is_namespace(section) { "namespaces.*" } else { section };
    UNAVAILABLE.contains(&(section, key))
}

fn is_namespace(section: &str) -> bool {
    section.strip_prefix(NAMESPACES).is_some_and(|rest| rest.starts_with('.'))
}

pub(super) fn refuse(raw: &Raw, problems: &mut Vec<Problem>) {
    let presets = Raw::preset().sections();
    let default_namespace = namespace_path(DEFAULT_NAMESPACE);
    for (name, section) in raw.sections() {
        if !section.names().iter().any(|key| is_unavailable(&name, key)) {
            continue;
        }
        let model = if is_namespace(&name) { &default_namespace } else { &name };
        let Some((_, preset)) = presets.iter().find(|(name, _)| name == model) else { continue };
        for (key, preset) in section.keys().into_iter().zip(preset.keys()) {
            if key.value != preset.value && is_unavailable(&name, key.name) {
                let path = key_path(&name, key.name);
                let (asked, only) = (key.value, preset.value);
                let text = format!("`{path} = {asked}` is not available in this version; only {only} is");
                problems.push(Problem { origin: Some(key.origin), text });
            }
        }
    }
}
