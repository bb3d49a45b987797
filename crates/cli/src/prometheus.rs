//! What the meters count, kept in memory and told in Prometheus' text form.
//!
//! A number per series and fixed buckets per histogram, so that memory does not grow with time, and a
//! bound on series, so that it does not grow with whatever a label says. The usual exporter keeps every
//! sample until somebody asks and brings twenty more packages; this is all of it that is needed here.

use metrics::{
    Counter, Gauge, Histogram, HistogramFn, Key, KeyName, Metadata, Recorder, SharedString, Unit,
};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// More are not counted.
const MOST_SERIES: usize = 5_000;

/// Upper bounds for what is measured in seconds, from store work to a slow request.
const SECONDS: [f64; 13] = [
    0.0001, 0.0005, 0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0,
];

/// Upper bounds for what is counted.
const COUNTS: [f64; 7] = [0.0, 1.0, 10.0, 100.0, 1_000.0, 10_000.0, 100_000.0];

/// The process's recorder; clones share what they have counted.
#[derive(Debug, Clone, Default)]
pub(crate) struct PrometheusRecorder(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    families: BTreeMap<String, Family>,
    series: usize,
}

#[derive(Debug, Default)]
struct Family {
    help: String,
    /// By labels, as they are shown.
    series: BTreeMap<String, Series>,
}

#[derive(Debug, Clone)]
enum Series {
    Counter(Arc<AtomicU64>),
    Gauge(Arc<AtomicU64>),
    Histogram(Arc<Buckets>),
}

impl PrometheusRecorder {
    /// Everything as it is now.
    pub(crate) fn render(&self) -> String {
        let mut text = String::new();
        for (name, family) in &self.lock().families {
            // Writing to a String cannot fail.
            let _ = family.render(name, &mut text);
        }
        text
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn describe(&self, key: &KeyName, description: &SharedString) {
        let mut inner = self.lock();
        let family = inner.families.entry(key.as_str().to_owned()).or_default();
        family.help = escaped(description);
    }

    /// The series of a key, made by `new` if it is the first time; `None` beyond the bound.
    fn series(&self, key: &Key, new: impl FnOnce() -> Series) -> Option<Series> {
        let mut labels: Vec<String> = key
            .labels()
            .map(|label| format!("{}=\"{}\"", label.key(), escaped(label.value())))
            .collect();
        labels.sort();
        let labels = labels.join(",");
        let mut inner = self.lock();
        let known = inner.families.get(key.name());
        if let Some(series) = known.and_then(|family| family.series.get(&labels)) {
            return Some(series.clone());
        }
        if inner.series >= MOST_SERIES {
            return None;
        }
        inner.series += 1;
        let family = inner.families.entry(key.name().to_owned()).or_default();
        Some(family.series.entry(labels).or_insert_with(new).clone())
    }
}

impl Recorder for PrometheusRecorder {
    fn describe_counter(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn describe_gauge(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn describe_histogram(&self, key: KeyName, _: Option<Unit>, description: SharedString) {
        self.describe(&key, &description);
    }

    fn register_counter(&self, key: &Key, _: &Metadata<'_>) -> Counter {
        match self.series(key, || Series::Counter(Arc::default())) {
            Some(Series::Counter(number)) => Counter::from_arc(number),
            _ => Counter::noop(),
        }
    }

    fn register_gauge(&self, key: &Key, _: &Metadata<'_>) -> Gauge {
        match self.series(key, || Series::Gauge(Arc::default())) {
            Some(Series::Gauge(number)) => Gauge::from_arc(number),
            _ => Gauge::noop(),
        }
    }

    fn register_histogram(&self, key: &Key, _: &Metadata<'_>) -> Histogram {
        let new = || Series::Histogram(Arc::new(Buckets::of(key.name())));
        match self.series(key, new) {
            Some(Series::Histogram(buckets)) => Histogram::from_arc(buckets),
            _ => Histogram::noop(),
        }
    }
}

impl Family {
    fn render(&self, name: &str, text: &mut String) -> std::fmt::Result {
        let Some(first) = self.series.values().next() else {
            return Ok(());
        };
        let kind = match first {
            Series::Counter(_) => "counter",
            Series::Gauge(_) => "gauge",
            Series::Histogram(_) => "histogram",
        };
        writeln!(text, "# HELP {name} {}\n# TYPE {name} {kind}", self.help)?;
        for (labels, series) in &self.series {
            let shown = match labels.is_empty() {
                true => String::new(),
                false => format!("{{{labels}}}"),
            };
            match series {
                Series::Counter(number) => {
                    writeln!(text, "{name}{shown} {}", number.load(Ordering::Relaxed))?;
                }
                Series::Gauge(bits) => {
                    let number = f64::from_bits(bits.load(Ordering::Relaxed));
                    writeln!(text, "{name}{shown} {number}")?;
                }
                Series::Histogram(buckets) => buckets.render(name, labels, &shown, text)?,
            }
        }
        Ok(())
    }
}

/// How many samples were at most so large, and their sum.
#[derive(Debug)]
struct Buckets {
    bounds: &'static [f64],
    counts: Mutex<(Vec<u64>, f64)>,
}

impl Buckets {
    fn of(name: &str) -> Self {
        let bounds: &[f64] = match name.ends_with("_seconds") {
            true => &SECONDS,
            false => &COUNTS,
        };
        Self {
            bounds,
            counts: Mutex::new((vec![0; bounds.len() + 1], 0.0)),
        }
    }

    fn render(&self, name: &str, labels: &str, shown: &str, text: &mut String) -> std::fmt::Result {
        let (counts, sum) = {
            let counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
            counts.clone()
        };
        let comma = if labels.is_empty() { "" } else { "," };
        let mut count = 0;
        for (index, more) in counts.iter().enumerate() {
            count += more;
            let bound = self.bounds.get(index).map(f64::to_string);
            let bound = bound.unwrap_or_else(|| "+Inf".to_owned());
            writeln!(
                text,
                "{name}_bucket{{{labels}{comma}le=\"{bound}\"}} {count}"
            )?;
        }
        writeln!(text, "{name}_sum{shown} {sum}\n{name}_count{shown} {count}")
    }
}

impl HistogramFn for Buckets {
    fn record(&self, value: f64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        counts.0[index] += 1;
        counts.1 += value;
    }
}

fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\\\").replace('\n', "\\n");
    text.replace('"', "\\\"")
}

#[cfg(test)]
mod tests {
    use super::*;
    use metrics::{counter, describe_counter, gauge, histogram, with_local_recorder};

    #[test]
    fn everything_is_told_in_the_form_that_prometheus_reads() {
        let recorder = PrometheusRecorder::default();
        with_local_recorder(&recorder, || {
            describe_counter!("b_total", "b");
            describe_counter!("never_total", "never counted");
            counter!("b_total", "what" => "a\"b\\c\nd").increment(2);
            counter!("b_total", "what" => "a\"b\\c\nd").increment(1);
            gauge!("a").set(1.5);
            for value in [0.0001, 0.2, 100.0] {
                histogram!("c_seconds", "k" => "v").record(value);
            }
        });
        let text = recorder.render();
        for line in [
            "# HELP b_total b",
            "# TYPE b_total counter",
            "b_total{what=\"a\\\"b\\\\c\\nd\"} 3",
            "# TYPE a gauge",
            "a 1.5",
            "# TYPE c_seconds histogram",
            "c_seconds_bucket{k=\"v\",le=\"0.0001\"} 1",
            "c_seconds_bucket{k=\"v\",le=\"0.1\"} 1",
            "c_seconds_bucket{k=\"v\",le=\"0.5\"} 2",
            "c_seconds_bucket{k=\"v\",le=\"+Inf\"} 3",
            "c_seconds_sum{k=\"v\"} 100.2001",
            "c_seconds_count{k=\"v\"} 3",
        ] {
            assert!(text.lines().any(|told| told == line), "{line} in\n{text}");
        }
        assert!(!text.contains("never"), "{text}");
    }

    #[test]
    fn the_number_of_series_is_bounded() {
        let recorder = PrometheusRecorder::default();
        with_local_recorder(&recorder, || {
            for number in 0..MOST_SERIES + 10 {
                counter!("a_total", "number" => number.to_string()).increment(1);
            }
        });
        let text = recorder.render();
        let counted = text.lines().filter(|line| line.starts_with("a_total"));
        assert_eq!(counted.count(), MOST_SERIES);
    }
}
