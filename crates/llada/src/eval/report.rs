//! Results in the form of lm-evaluation-harness, so that its tables and viewers read them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value as Json, json};

use super::{
    Outcome, Plan, Prepared,
    metric::{self, Estimate, Value},
};

/// A task that was run.
#[derive(Debug)]
pub struct Finished {
    /// Its rows.
    pub prepared: Prepared,
    /// Its settings.
    pub plan: Plan,
    /// Its results.
    pub outcome: Outcome,
}

/// One line of a table: a task, or a group of its rows.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The group; `None` for the whole task.
    pub group: Option<String>,
    /// Rows that were evaluated.
    pub rows: usize,
    /// Estimates by `metric,filter`.
    pub estimates: BTreeMap<String, Estimate>,
}

impl Finished {
    /// The results of the task, and then of each of its groups. Every row weighs the same, so a
    /// larger group weighs more.
    pub fn lines(&self) -> Vec<Line> {
        let groups: BTreeSet<&String> =
            self.outcome.records.iter().filter_map(|r| r.group.as_ref()).collect();
        let mut lines = vec![self.line(None)];
        if groups.len() > 1 {
            lines.extend(groups.into_iter().map(|group| self.line(Some(group))));
        }
        lines
    }

    fn line(&self, group: Option<&String>) -> Line {
        let records = self.outcome.records.iter();
        let records: Vec<_> =
            records.filter(|r| group.is_none() || r.group.as_ref() == group).collect();
        let estimates = self.prepared.task.metrics().into_iter().filter_map(|name| {
            let scores: Vec<Value> =
                records.iter().filter_map(|r| r.metrics.get(&name)).copied().collect();
            let metric = name.split(',').next().unwrap_or_default();
            (!scores.is_empty()).then(|| (name.clone(), metric::aggregate(metric, &scores)))
        });
        Line { group: group.cloned(), rows: records.len(), estimates: estimates.collect() }
    }

    /// Name of a line in results: `task`, or `task_group`.
    fn name(&self, line: &Line) -> String {
        match &line.group {
            Some(group) => format!("{}_{group}", self.prepared.task.name),
            None => self.prepared.task.name.clone(),
        }
    }
}

/// The results of a run. `config` is what is known of the model and the run as a whole, and
/// becomes the key of that name.
pub fn json(finished: &[Finished], config: Json) -> Json {
    let mut out: BTreeMap<&str, Map<String, Json>> = BTreeMap::new();
    let mut add = |section, name: &String, value: Json| {
        out.entry(section).or_default().insert(name.clone(), value);
    };
    for task in finished {
        let (Prepared { task: file, shots, bad, rows, .. }, outcome) =
            (&task.prepared, &task.outcome);
        let lines = task.lines();
        for line in &lines {
            let name = task.name(line);
            let alias = match &line.group {
                Some(group) => format!(" - {group}"),
                None => name.clone(),
            };
            let results = results(&alias, line);
            if line.group.is_none() && lines.len() > 1 {
                add("groups", &name, results.clone());
            }
            add("results", &name, results);
            add("versions", &name, json!(file.version));
            add("n-shot", &name, json!(shots));
        }
        let name = &file.name;
        let subtasks: Vec<String> = lines[1..].iter().map(|line| task.name(line)).collect();
        add("group_subtasks", name, json!(subtasks));
        add("configs", name, json!({ "task": file, "settings": task.plan }));
        add("n-samples", name, json!({ "original": rows, "effective": outcome.records.len() }));
        let better = file.metrics().into_iter().map(|metric| {
            let metric = metric.split(',').next().unwrap_or_default().to_owned();
            (metric.clone(), Json::from(metric::higher_is_better(&metric)))
        });
        add("higher_is_better", name, Json::Object(better.collect()));
        let excluded = json!({ "bad_rows": bad, "too_long": outcome.too_long,
            "truncated": outcome.truncated });
        add("excluded", name, excluded);
    }
    let mut json = json!(out);
    json["config"] = config;
    json
}

/// One entry of `results`: the harness writes `N/A` where there is no standard error.
fn results(alias: &str, line: &Line) -> Json {
    let mut results = Map::from_iter([
        ("alias".to_owned(), Json::from(alias)),
        ("sample_len".to_owned(), Json::from(line.rows)),
    ]);
    for (name, estimate) in &line.estimates {
        let (metric, filter) = name.split_once(',').unwrap_or((name, "none"));
        results.insert(name.clone(), json!(estimate.value));
        let error = estimate.standard_error.map_or(json!("N/A"), |error| json!(error));
        results.insert(format!("{metric}_stderr,{filter}"), error);
    }
    Json::Object(results)
}
