"""Which test holds what: the reviewed cases of the command line, and that each named test is there.

"group N" are the 23 groups of real inputs tried on `ascend` (npu-smi tables, configurations, manifests, reports); A and
B are the review of the source. A case that is mended comes here with the test that would have caught it.
"""

from __future__ import annotations

import ast
from functools import cache
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[1]

# What went wrong, and file::test below tests/unit for each test that now holds it.
CASES: dict[str, tuple[str, tuple[str, ...]]] = {
    "group 1": (
        "a busy chip is told from a driver that is not up, whatever is printed first",
        (
            "cli/test_machines.py::test_a_busy_chip_is_called_busy_whatever_is_printed_first",
            "cli/test_machines.py::test_the_causes_of_8005_are_told_apart",
        ),
    ),
    "group 2": (
        "the memory of the real chip is planned with",
        (
            "cli/test_machines.py::test_the_memory_of_this_machine_is_planned_with",
            "cli/test_machines.py::test_the_smallest_card_of_a_machine_is_planned_with",
            "cli/test_machines.py::test_a_folder_of_empty_weights_is_decided_upon_and_not_served",
        ),
    ),
    "group 3": (
        "lists and nulls where a number is expected",
        (
            "cli/test_published_models.py::test_parameters_bytes_and_cache_are_the_published_ones",
            "cli/test_hostile_folders.py::test_every_field_with_every_kind_of_value",
        ),
    ),
    "group 4": (
        "odd rows and unknown chips end in no traceback",
        (
            "cli/test_hostile_tables.py::test_every_command_answers_a_cut_table",
            "cli/test_hostile_tables.py::test_an_odd_row_anywhere_is_read_around",
            "cli/test_machines.py::test_an_unknown_chip_is_named_and_not_taken_for_another",
            "cli/test_machines.py::test_chips_of_two_kinds_are_not_counted_as_one",
        ),
    ),
    "group 5": (
        "a model whose configuration leaves sizes out is planned by its family, or served without a plan",
        (
            "cli/test_published_models.py::test_parameters_bytes_and_cache_are_the_published_ones",
            "cli/test_serve.py::test_a_config_that_cannot_be_read_is_served_without_a_plan",
            "cli/test_serve.py::test_it_says_that_there_is_no_plan",
        ),
    ),
    "group 6": (
        "the table of npu-smi 25.6 and later",
        (
            "cli/test_machines.py::test_every_command_answers_on_every_machine",
            "cli/test_machines.py::test_the_table_of_25_6_is_read",
        ),
    ),
    "group 7": (
        "an npu-smi that fails or hangs is said, and no chip guessed",
        (
            "cli/test_machines.py::test_an_npu_smi_that_fails_is_said_and_no_chip_guessed",
            "cli/test_machines.py::test_an_npu_smi_that_hangs_is_asked_once",
            "cli/test_machines.py::test_top_says_why_there_are_no_chips",
        ),
    ),
    "group 8": (
        "a measured run is never lost to a traceback",
        (
            "cli/test_bench_vllm.py::test_a_server_that_dies_leaves_rows_and_not_a_traceback",
            "cli/test_bench_vllm.py::test_a_format_that_is_none_is_refused_before_the_run",
            "cli/test_bench_vllm.py::test_percentiles_of_the_users_choice_keep_the_99th",
            "cli/test_bench_vllm.py::test_another_service_on_the_port_is_said",
            "cli/test_bench_vllm.py::test_zero_everywhere_is_compared_and_reported",
            "cli/test_bench_results.py::test_no_results_file_however_spoiled_is_a_traceback",
            "cli/test_foreign_results.py::test_a_hostile_value_anywhere_is_one_sentence",
        ),
    ),
    "group 9": (
        "parameters of every family are the published ones",
        (
            "cli/test_published_models.py::test_parameters_bytes_and_cache_are_the_published_ones",
            "cli/test_published_models.py::test_a_token_meets_as_many_parameters_as_the_authors_state",
        ),
    ),
    "group 10": (
        "formats, sliding windows and the indexer's keys count as they are",
        (
            "cli/test_published_models.py::test_every_format_is_told",
            "cli/test_published_models.py::test_bytes_of_quantized_checkpoints",
            "cli/test_published_models.py::test_windowed_layers_keep_their_window",
            "cli/test_published_models.py::test_the_indexer_s_keys_count",
        ),
    ),
    "group 11": (
        "deploy refuses what plan refuses",
        (
            "cli/test_deploy_safety.py::test_what_does_not_fit_is_not_rendered",
            "cli/test_deploy_safety.py::test_what_no_target_would_take_is_refused_in_a_line",
        ),
    ),
    "group 12": (
        "names of HAMi's resources; MindCluster's scheduler and labels",
        (
            "cli/test_deploy.py::test_device_plugins_name_chips_differently",
            "cli/test_deploy_safety.py::test_mindcluster_pods_go_to_volcano",
            "cli/test_deploy_safety.py::test_volcano_s_pods_carry_mindclusters_label",
        ),
    ),
    "group 13": (
        "a snapshot of the hub's cache is mounted with its blobs",
        ("cli/test_deploy_safety.py::test_a_snapshot_of_the_hub_cache_is_mounted_with_its_blobs",),
    ),
    "group 14": (
        "no option is dropped",
        (
            "cli/test_deploy_safety.py::test_the_open_form_keeps_its_options",
            "cli/test_deploy_safety.py::test_every_image_comes_from_the_mirror",
            "cli/test_serve.py::test_other_parallel_sizes_are_planned_with",
            "cli/test_serve.py::test_dry_run_and_json_touch_nothing",
            "cli/test_serve.py::test_a_model_that_cannot_fit_is_refused_before_it_is_fetched",
        ),
    ),
    "group 15": (
        "the warning of root names an image that the chip can use",
        ("cli/test_deploy.py::test_the_image_decides_whether_root_is_needed",),
    ),
    "group 16": (
        "names obey the target's grammar, values are quoted, Atlas 200I Pro gets its own files",
        (
            "cli/test_deploy_safety.py::test_any_served_name_and_folder_is_quoted",
            "cli/test_deploy_safety.py::test_every_text_survives_the_serializer",
            "cli/test_deploy_safety.py::test_a_name_that_is_a_number_or_a_word_of_yaml_is_text",
            "cli/test_deploy_safety.py::test_a_service_named_vllm_is_not_given_a_port_by_kubernetes",
            "cli/test_deploy_safety.py::test_the_proxy_lets_through_what_the_task_needs",
            "cli/test_deploy_safety.py::test_nginx_takes_the_proxys_configuration",
            "cli/test_deploy_safety.py::test_an_atlas_200i_pro_gets_its_own_nodes_and_files",
        ),
    ),
    "group 17": (
        "drivers by their line, CANN wherever it is",
        (
            "cli/test_doctor.py::test_drivers_are_judged_by_their_line",
            "cli/test_doctor.py::test_cann_is_found_wherever_it_is_installed",
        ),
    ),
    "group 18": (
        "device nodes of another user, some of a card's chips in a container",
        ("cli/test_doctor.py::test_a_broken_host_gets_the_right_finding",),
    ),
    "group 19": (
        "the doctor's words",
        (
            "cli/test_machines.py::test_a_process_without_a_name_is_no_kill",
            "cli/test_machines.py::test_a_chip_that_fell_off_is_a_finding",
        ),
    ),
    "group 20": (
        "configurations of wrong kinds",
        (
            "cli/test_facts_properties.py::test_one_hostile_field_never_ends_in_a_traceback",
            "cli/test_hostile_folders.py::test_every_field_with_every_kind_of_value",
            "cli/test_hostile_folders.py::test_every_file_with_every_kind_of_content",
            "cli/test_hostile_folders.py::test_what_is_no_file",
            "cli/test_hostile_folders.py::test_names_that_are_none",
        ),
    ),
    "group 21": (
        "proxies, addresses of hubs and servers, keys that are no text",
        (
            "cli/test_bench_vllm.py::test_loopback_is_never_asked_through_a_proxy",
            "cli/test_bench_vllm.py::test_an_address_that_is_none_is_one_line",
            "cli/test_download.py::test_a_hub_without_a_scheme_is_bad_input",
        ),
    ),
    "group 22": (
        "widths, pipes and encodings of terminals",
        (
            "cli/test_terminals.py::test_no_figure_is_cut_at_any_width",
            "cli/test_terminals.py::test_a_closed_pipe_is_a_good_end",
            "cli/test_terminals.py::test_every_encoding_is_written",
        ),
    ),
    "group 23": (
        "a schema in every JSON, no NaN, exit codes as on the page",
        ("cli/test_terminals.py::test_every_json_names_its_schema", "cli/test_terminals.py::test_ctrl_c_is_130"),
    ),
    "A1": ("deployments fail closed", ("cli/test_deploy_safety.py::test_no_server_starts_without_its_key",)),
    "A2": ("serve listens on loopback", ("cli/test_serve.py::test_a_server_is_closed_unless_told_otherwise",)),
    "A3": ("keys stay out of records", ("cli/test_serve.py::test_a_key_is_in_no_argv_record_or_log",)),
    "A4": (
        "an interrupted download is gone on with",
        (
            "cli/test_download.py::test_an_interrupted_download_is_gone_on_with",
            "cli/test_download.py::test_a_hostile_index_is_incomplete_and_cheap",
        ),
    ),
    "A5": (
        "ModelScope's files are held to the listing",
        (
            "cli/test_download.py::test_a_file_of_another_revision_is_fetched_anew_whatever_its_size",
            "cli/test_download.py::test_a_body_cut_short_is_never_complete",
            "cli/test_download.py::test_what_the_sdk_could_not_fetch_whole_is_never_complete",
        ),
    ),
    "A6": ("unknown is unknown", ("cli/test_bench_vllm.py::test_another_machines_chip_and_size_are_unknown",)),
    "A7": (
        "tokens that were not audited are said",
        ("cli/test_bench_vllm.py::test_tokens_that_could_not_be_audited_are_said_loudly",),
    ),
    "A8": (
        "sweeps never mix models",
        (
            "cli/test_bench_vllm.py::test_a_sweep_never_mixes_models",
            "cli/test_bench_vllm.py::test_refused_and_damaged_points_are_measured_again",
        ),
    ),
    "A9": ("no false refusals", ("plugin/test_memory_refusal.py::test_a_model_of_two_matrices_is_not_refused",)),
    "A10": (
        "a margin counts the weights that were measured",
        ("cli/test_memory_plan.py::test_a_cache_surely_fits_beside_the_weights_that_were_measured",),
    ),
    "B1": (
        "an emulated chip's limit is planned with",
        ("cli/test_serve.py::test_an_emulated_chips_small_cache_shortens_the_context",),
    ),
    "B2": ("the user's flags are planned with", ("cli/test_serve.py::test_other_parallel_sizes_are_planned_with",)),
    "B3": ("dry runs touch nothing", ("cli/test_serve.py::test_dry_run_and_json_touch_nothing",)),
    "B4": ("the checkpoint's format", ("cli/test_deploy_safety.py::test_the_checkpoints_format_decides_the_chips",)),
    "B5": ("what cannot start", ("cli/test_deploy_safety.py::test_what_does_not_fit_is_not_rendered",)),
    "B6": ("what was run is asked", ("cli/test_models.py::test_plan_offers_no_command_for_what_is_refused",)),
    "B7": ("links by distance", ("cli/test_arithmetic.py::test_links_by_distance",)),
    "B8": ("the plan's own advice", ("cli/test_arithmetic.py::test_a_doubling_must_be_worth_its_chips",)),
    "B9": (
        "hybrids on 310P",
        (
            "cli/test_arithmetic.py::test_hybrids_share_the_cache_where_states_lie_apart",
            "cli/test_published_models.py::test_a_recurrent_state_keeps_its_own_dtype",
        ),
    ),
    "B10": ("a failed run", ("cli/test_bench_vllm.py::test_zero_everywhere_is_compared_and_reported",)),
    "B11": ("--weights", ("cli/test_bench_vllm.py::test_a_format_that_is_none_is_refused_before_the_run",)),
    "B12": (
        "unknown hardware",
        ("cli/test_machines.py::test_an_unknown_chip_is_named_and_not_taken_for_another",),
    ),
    "B13": ("the HTTP client", ("cli/test_bench_vllm.py::test_another_service_on_the_port_is_said",)),
    "B14": ("engines apart", ("cli/test_bench_vllm.py::test_engines_are_kept_apart",)),
    "B15": ("progress", ("cli/test_bench_vllm.py::test_progress_is_passed_on_as_it_comes",)),
    "B16": (
        "engines and records end with their server",
        (
            "cli/test_bench_vllm.py::test_engines_do_not_outlive_a_server_that_died",
            "cli/test_serve.py::test_a_process_number_that_was_taken_again_is_not_the_server",
        ),
    ),
    "B17": (
        "texts of manifests and the proxy",
        (
            "cli/test_deploy_safety.py::test_flags_reach_vllm_as_they_were_typed",
            "cli/test_deploy_safety.py::test_a_key_file_with_an_odd_name_stays_whole",
        ),
    ),
    "B18": (
        "CANN that is not sourced",
        ("plugin/test_preconditions.py::test_cann_that_cannot_be_loaded_is_said_once_with_the_command",),
    ),
    "B19": ("one offline floor", ("cli/test_bench_report.py::test_one_offline_floor_for_reports_and_benchmarks",)),
    "foreign results": ("read alike", ("cli/test_foreign_results.py::test_every_tool_tells_the_same_measurement",)),
    "monitoring": (
        "names that are exported",
        (
            "cli/test_monitoring.py::test_every_name_and_label_is_one_that_is_exported",
            "cli/test_monitoring.py::test_alerts_fire_when_they_should_and_only_then",
        ),
    ),
    "offline": ("a bundle installs", ("cli/test_offline_bundle.py::test_a_bundle_is_complete_and_installs",)),
    "image": ("the locks", ("cli/test_dockerfile.py::test_every_step_runs_and_the_image_is_what_deploy_expects",)),
    "digests": ("pinned", ("cli/test_deploy_safety.py::test_an_image_by_its_digest_is_rendered_everywhere",)),
    "journey": ("every line walks", ("cli/test_journey.py::test_every_line_walks",)),
}


@cache
def names_in(file: str) -> set[str]:
    tree = ast.parse((UNIT / file).read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("case", CASES)
def test_each_case_has_a_test_that_is_there(case: str) -> None:
    _, tests = CASES[case]
    assert tests
    for test in tests:
        file, _, name = test.partition("::")
        assert name in names_in(file), f"{case}: {test} is not there"


def test_every_group_and_finding_is_listed() -> None:
    wanted = {f"group {number}" for number in range(1, 24)} | {f"A{number}" for number in range(1, 11)}
    wanted |= {f"B{number}" for number in range(1, 20)}
    assert wanted <= CASES.keys()
