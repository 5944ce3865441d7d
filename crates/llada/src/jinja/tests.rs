use std::fs;

use serde_json::{Value as Json, json};

use super::*;

fn now() -> NaiveDateTime {
    let day = chrono::NaiveDate::from_ymd_opt(2026, 7, 4).unwrap();
    day.and_hms_opt(15, 6, 7).unwrap()
}

fn rendered(template: &str, context: &Json) -> Result<String, Mistake> {
    let mut jinja = environment(Dialect::Transformers { now: now() })?;
    add(&mut jinja, template)?;
    render(&jinja, value(context), context.to_string().len())
}

/// What `tests/peers/chat_templates.py --golden` has computed with jinja2 as `transformers` sets it
/// up: texts, or null where it raises.
#[test]
fn templates_render_as_jinja2_renders_them() {
    let file = crate::golden::own("jinja.json");
    let golden: Json = serde_json::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let cases = golden["cases"].as_array().unwrap();
    assert!(cases.len() > 700);
    let mut wrong = Vec::new();
    for case in cases {
        let template = case["template"].as_str().unwrap();
        let found = rendered(template, &golden["context"]);
        if found.as_deref().ok() != case["expected"].as_str() {
            wrong.push(format!("{template:?}: {found:?}, expected {}", case["expected"]));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn templates_that_take_too_much_end_in_an_error() {
    let doubling = |body: &str| {
        format!("{{% set ns = namespace(x={body}) %}}{{% for i in range(60) %}}{{% set ns.x = ns.x")
    };
    let twice = |start: &str, more: &str| format!("{}{more} %}}{{% endfor %}}", doubling(start));
    let deep = "{% set ns = namespace(x=[]) %}{% for i in range(90000) %}{% set ns.x = [ns.x] %}\
                {% endfor %}{{ ns.x }}";
    for template in [
        "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
        "{% for i in range(99999) %}{% for j in range(99999) %}x{% endfor %}{% endfor %}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "{% macro m(n) %}{% for i in range(9) %}{{ m(n) }}{% endfor %}{% endmacro %}{{ m(1) }}",
        "{% for i in [1] recursive %}{{ loop([1]) }}{% endfor %}",
        &twice("'ab'", " + ns.x"),
        &twice("'ab'", " ~ ns.x"),
        &twice("'ab'", " * 2"),
        &twice("['ab']", " + ns.x"),
        &twice("'ab'", "|replace('', ns.x)"),
        &(twice("['ab']", "")
            + &doubling("[1]").replace("ns.x = ns.x", "ns.x = [ns.x, ns.x]")
            + " %}{% endfor %}{{ ns.x }}"),
        &twice("'ab'", ".join(['', '', ''])"),
        deep,
        "{{ 'a' * 1000000000 }}",
        "{{ ('a' * 100000) * 100000 }}",
        "{{ 'a'|center(1000000000) }}",
        "{{ 'a'.center(1000000000) }}",
        "{{ 'a'.ljust(10000000000) }}",
        "{{ '1'.zfill(1000000000) }}",
        "{{ '%1000000000d' % 1 }}",
        "{{ '%.1000000000f' % 1 }}",
        "{{ '%*d' % (1000000000, 1) }}",
        "{{ '{:1000000000}'.format(1) }}",
        "{{ '{:{}}'.format(1, 1000000000) }}",
        "{{ '%1000000000d'|format(1) }}",
        "{{ 'a\nb'|indent(1000000000) }}",
        "{{ ('a\n' * 10000)|indent('b' * 100000) }}",
        "{{ range(99999)|join('x' * 99999) }}",
        "{{ ('x' * 99999).join('y' * 99999) }}",
        "{{ ('a' * 99999).replace('a', 'b' * 99999) }}",
        "{{ ('a' * 99999)|replace('a', 'b' * 99999) }}",
        "{{ ('\t' * 99999).expandtabs(99999) }}",
        "{{ [1]|batch(1000000000, 'x')|list }}",
        "{{ [1]|slice(1000000000)|list }}",
        "{{ {'a': 1}|tojson(indent=1000000000) }}",
        "{{ [[[[1]]]]|tojson(indent='x' * 30000000) }}",
        "{{ range(1000000000)|list }}",
        "{{ [1] * 1000000000 }}",
        "{{ ([1] * 99999999)|list }}",
        "{{ 9 ** 9 ** 9 }}",
        "{% set ns = namespace() %}{% set ns.s = ns %}{{ ns }}",
        "{% set ns = namespace() %}{% set ns.s = [{'a': ns}] %}{{ ns.s }}",
        "{{ ('%(a)s' * 3000) % {'a': 'a' * 1000000} }}",
        "{% set l = ['A' * 800000] * 100000 %}{{ l|map('upper')|list|length }}",
        "{% set l = ['A' * 800000] * 100000 %}{{ l|map('length')|list|length }}",
        "{% set l = ['A' * 800000] * 100000 %}{{ l|select('lower')|list|length }}",
        "{% set l = 'é' * 4000000 %}{% for i in range(100000) %}{% if l[3999999] %}{% endif %}\
         {% endfor %}",
        "{% set l = 'a' * 4000000 %}{% for i in range(100000) %}{% set x = {l: 1} %}{% endfor %}",
        "{% for i in range(9) %}{{ ('a' * 800000)|wordwrap(3) }}{% endfor %}",
        "{{ ('\n' * 800000)|wordwrap(1, true, 'x' * 100000) }}",
        "{{ ('a' * 800000)|wordwrap(1, true, 'x' * 100000) }}",
        "{% set a = 'A' * 80000 %}{{ ([a ~ '1', a ~ '2'] * 10000)|sort|length }}",
        "{% macro f(a, b=a) %}{{ b }}{% endmacro %}{{ f(1) }}",
        "{{ ((range(99999)|list) * 1000)|pprint }}",
        "{{ ('a ' * 8000000)|pprint }}",
        "{{ ('ab.com ' * 99999)|urlize(target='x' * 99999) }}",
        "{{ ('a ' * 99999)|urlize(extra_schemes=['xy:'] * 99999) }}",
        "{{ ('a' * 99999).translate({97: 'x' * 99999}) }}",
        "{{ ('a' * 99999).translate({97: 'x' * 60}).translate({120: 'x' * 60}) }}",
    ] {
        let found = rendered(template, &json!({}));
        assert!(found.is_err(), "{template}: {:?}", found.map(|text| text.len()));
    }
    let long = "x".repeat(Limits::SOURCE + 1);
    assert!(rendered(&long, &json!({})).unwrap_err().what.contains("bytes"));
}

#[test]
fn what_has_no_order_is_sorted_without_a_panic() {
    let template = "{{ ([3, 'nan'|float, 1, 2.5, 'nan'|float, true] * 100)|sort|length }}";
    assert_eq!(rendered(template, &json!({})).unwrap(), "600");
    assert!(rendered("{{ ([3, 'a', 1, 'b', none] * 100)|sort }}", &json!({})).is_err());
}

#[test]
fn fuel_grows_with_what_is_read() {
    let content = "lorem ipsum ".repeat(1_000_000);
    let template = "{% for m in messages %}{{ m.content | trim | upper }}{% endfor %}";
    let context = json!({ "messages": [{ "role": "user", "content": content }] });
    assert_eq!(rendered(template, &context).unwrap(), content.trim().to_uppercase());
}

#[test]
fn nested_sources_neither_overflow_nor_hang() {
    for (open, close) in
        [("(", ")"), ("[", "]"), ("{1:", "}"), ("-", ""), ("not ", ""), ("a[", "]")]
    {
        let source = format!("{{{{ {}1{} }}}}", open.repeat(50_000), close.repeat(50_000));
        let _ = rendered(&source, &json!({}));
    }
    for tag in ["{% if 1 %}", "{% for x in [1] %}", "{% macro m() %}", "{% filter upper %}", "{{"] {
        assert!(rendered(&tag.repeat(50_000), &json!({})).is_err(), "{tag}");
    }
    let _ = rendered(&format!("{{{{ 1{} }}}}", " + 1".repeat(100_000)), &json!({}));
    let _ = rendered(&format!("{{{{ 1{} }}}}", "|abs".repeat(100_000)), &json!({}));
    let _ = rendered(&format!("{{{{ a{} }}}}", ".a".repeat(100_000)), &json!({}));
    let _ = rendered(&"{% set x = [x] %}".repeat(40_000), &json!({}));
}

#[test]
fn mistakes_name_their_line() {
    for (template, line) in [
        ("one\n{{ 1 + }}", 2),
        ("\n\n{{ raise_exception('no') }}", 3),
        ("{{\n1\n}}\n{{ nothing.x }}", 4),
        ("a\n{% nosuch %}", 2),
        ("{# \n #}\n{{ 'a }}", 3),
    ] {
        assert_eq!(rendered(template, &json!({})).unwrap_err().line, line, "{template}");
    }
    let what = rendered("{{ raise_exception('no system role') }}", &json!({})).unwrap_err().what;
    assert_eq!(what, "no system role");
}

#[test]
fn what_is_not_there_is_refused_by_name() {
    for (template, named) in [
        ("{{ [1]|random }}", "`random`"),
        ("{{ [[1]]|map('random')|list }}", "`random`"),
        ("{{ lipsum() }}", "`lipsum`"),
        ("{{ 'a'.encode() }}", "`encode`"),
        ("{% macro m() %}{{ varargs }}{% endmacro %}", "`varargs`"),
        ("{% macro m(a) %}{% if kwargs %}{% endif %}{% endmacro %}{{ m(1) }}", "`kwargs`"),
        ("{% macro m(a) %}{{ f(**kwargs) }}{% endmacro %}", "`kwargs`"),
        (
            "{% macro m() %}{% endmacro %}{% call m() %}{{ varargs|length }}{% endcall %}",
            "`varargs`",
        ),
        (
            "{% macro m(kwargs) %}{% macro n() %}{{ kwargs }}{% endmacro %}{% endmacro %}",
            "`kwargs`",
        ),
    ] {
        let what = rendered(template, &json!({})).unwrap_err().what;
        assert!(what.contains(named), "{template}: {what}");
    }
}

proptest::proptest! {
    #[test]
    fn no_template_makes_the_engine_panic(
        pieces in proptest::collection::vec(proptest::sample::select(vec![
            "{{", "}}", "{%", "%}", "{#", "#}", "-", "+", "for", "x", "in", "if", "set", "=", "[", "]",
            "(", ")", "{", "}", "|", "tojson", "is", "not", "'", "\"", "\\", "1", ".", ",", ":", "~",
            "%", "macro", "endfor", "endif", "raw", "endraw", "generation", "endgeneration", " ",
            "\n", "é", "loop", ".cycle()", "*", "**", "//", "<", "==", "items", "__item__(1)",
            "__each__()", "__slice__(", "__concat__",
        ]), 0..24)
    ) {
        let _ = rendered(&pieces.concat(), &json!({ "x": [1, { "a": "b" }] }));
        let _ = rendered(&format!("{{{{ {} }}}}", pieces.concat()), &json!({ "x": "abc" }));
    }
}
