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
    lines: Vec<Line>,
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
    /// Computes the results of a task.
    pub fn new(prepared: Prepared, plan: Plan, outcome: Outcome) -> Self {
        let lines = lines(&prepared, &outcome);
        Self { prepared, plan, outcome, lines }
    }

    /// The results of the task, and then of each of its groups. Those of the task are the means of
    /// the groups', in which a group weighs as many as it has rows; of a perplexity too, as
    /// lm-evaluation-harness does it.
    pub fn lines(&self) -> &[Line] {
        &self.lines
    }
    /// Name of a line in results: `task`, or `task_group`.
    fn name(&self, line: &Line) -> String {
        match &line.group {
            Some(group) => format!("{}_{group}", self.prepared.task.name),
            None => self.prepared.task.name.clone(),
        }
    }
}

/// The results of a task, and then of each of its groups.
pub(super) fn lines(prepared: &Prepared, outcome: &Outcome) -> Vec<Line> {
    let groups: BTreeSet<&String> =
        outcome.records.iter().filter_map(|r| r.group.as_ref()).collect();
    let mut lines = vec![line(prepared, outcome, None)];
    if groups.len() > 1 {
        lines.extend(groups.into_iter().map(|group| line(prepared, outcome, Some(group))));
        pool(&mut lines);
    }
    lines
}

/// The results of the rows of `group`, or of all.
fn line(prepared: &Prepared, outcome: &Outcome, group: Option<&String>) -> Line {
    let records = outcome.records.iter();
    let records: Vec<_> =
        records.filter(|r| group.is_none() || r.group.as_ref() == group).collect();
    let estimates = prepared.task.metrics().into_iter().filter_map(|name| {
        let scores: Vec<Value> =
            records.iter().filter_map(|r| r.metrics.get(&name)).copied().collect();
        let metric = name.split(',').next().unwrap_or_default();
        (!scores.is_empty()).then(|| (name.clone(), metric::aggregate(metric, &scores)))
    });
    Line { group: group.cloned(), rows: records.len(), estimates: estimates.collect() }
}

/// Makes the first line, which is that of the whole task, of the others.
fn pool(lines: &mut [Line]) {
    let Some((whole, groups)) = lines.split_first_mut() else { return };
    for (name, estimate) in &mut whole.estimates {
        let of_groups: Vec<Estimate> =
            groups.iter().filter_map(|group| group.estimates.get(name)).copied().collect();
        *estimate = metric::pooled(&of_groups);
    }
}

/// A task that could not be evaluated.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failed {
    /// Its name.
    pub task: String,
    /// Why.
    pub reason: String,
}

/// The results of a run. `config` is what is known of the model and the run as a whole, and
/// becomes the key of that name; the tasks that failed are under `errors`.
pub fn json(finished: &[Finished], failed: &[Failed], config: Json) -> Json {
    let mut out: BTreeMap<&str, Map<String, Json>> = BTreeMap::new();
    let mut add = |section, name: &String, value: Json| {
        out.entry(section).or_default().insert(name.clone(), value);
    };
    for task in finished {
        let (Prepared { task: file, shots, bad, rows, .. }, outcome) =
            (&task.prepared, &task.outcome);
        let lines = task.lines();
        for line in lines {
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
    if !failed.is_empty() {
        let errors = failed.iter().map(|f| (f.task.clone(), Json::from(f.reason.clone())));
        json["errors"] = Json::Object(errors.collect());
    }
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
        if let Some(error) = estimate.linear_error {
            results.insert(format!("{metric}_linear_stderr,{filter}"), json!(error));
        }
    }
    Json::Object(results)
}
