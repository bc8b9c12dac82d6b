//! Where spans go.

use hyper::Uri;
use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::config::raw;
use crate::config::value::{Secret, Setting};
use crate::traces::TraceTerms;

use super::check::Check;

/// Where a collector takes spans when its address does not say (OpenTelemetry protocol, OTLP/HTTP).
const PATH: &str = "/v1/traces";

impl Check {
    pub(super) fn traces(&mut self, raw: &raw::Traces) -> Option<TraceTerms> {
        let sample_ratio = raw.sample_ratio.value;
        if !(0.0..=1.0).contains(&sample_ratio) {
            self.problem(&raw.sample_ratio, format!("`traces.sample_ratio` = {sample_ratio} is not between 0 and 1"));
        }
        if raw.service_name.value.is_empty() {
            self.problem(&raw.service_name, "`traces.service_name` must not be empty".to_owned());
        }
        let headers = self.trace_headers(&raw.headers);
        let timeout = self.time("traces.timeout_ms", &raw.timeout_ms, 100..=60_000);
        let queue_max = self.count("traces.queue_max", &raw.queue_max, 16..=1 << 20);
        if raw.url.value.is_empty() {
            return None;
        }
        let Some(url) = collector(&raw.url.value) else {
            let text = "`traces.url` must be an https or http address, without a user in it".to_owned();
            self.problem(&raw.url, text);
            return None;
        };
        let service_name = raw.service_name.value.clone();
        Some(TraceTerms { url, headers, timeout, sample_ratio, service_name, queue_max })
    }

    fn trace_headers(&mut self, setting: &Setting<Vec<Secret>>) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (index, line) in setting.value.iter().enumerate() {
            match header(line.expose()) {
                Some((name, value)) => _ = headers.append(name, value),
                None => {
                    let text = format!("entry {} of `traces.headers` must be of the form `Name: value`", index + 1);
                    self.problem(setting, text);
                }
            }
        }
        headers
    }
}

fn header(line: &str) -> Option<(HeaderName, HeaderValue)> {
    let (name, value) = line.split_once(':')?;
    let mut value = HeaderValue::from_str(value.trim()).ok().filter(|value| !value.is_empty())?;
    // It is somebody's key: it shall not be printed.
    value.set_sensitive(true);
    Some((name.trim().parse().ok()?, value))
}

fn collector(text: &str) -> Option<Uri> {
    let url: Uri = text.parse().ok()?;
    let authority = url.authority().filter(|authority| !authority.as_str().contains('@'))?;
    let scheme = url.scheme().filter(|scheme| matches!(scheme.as_str(), "http" | "https"))?;
    let path = match url.path_and_query() {
        Some(path) if path.as_str() != "/" => path.as_str(),
        _ => PATH,
    };
    Uri::builder().scheme(scheme.clone()).authority(authority.clone()).path_and_query(path).build().ok()
}
