"""Count the trials in tests/robustness by kind of fault, and write the table in docs/concepts/guarantees.md.

A trial is a test, or a test with one set of its parameters, as pytest collects it. Every test must belong to a kind.

    python scripts/count_trials.py            # update the table
    python scripts/count_trials.py --check    # only check that it is up to date
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "concepts" / "guarantees.md"
BEGIN, END = "<!-- trials:begin -->\n", "<!-- trials:end -->"
# Tests by kind: the names of functions without "test_". A name with a parameter counts those trials elsewhere.
KINDS = {
    "Two processes write one output": """
        second_process_is_refused_and_told_which_one_writes two_runs_started_together_lose_nothing
        lock_leaves_no_files""",
    "An output replaces an input or a file of somebody else": """
        folder_that_no_run_has_written_is_never_replaced input_is_never_replaced rejects_only_replace_rejects
        converted_folder_is_replaced_only_if_nothing_was_added""",
    "A run is resumed with another pipeline, model or input": """
        run_is_not_resumed_with_another_pipeline run_is_resumed_with_a_copy_of_the_pipeline
        other_standard_input_is_never_taken_for_the_same run_of_files_is_not_discarded_by_standard_input
        classifiers_are_not_resumed_with_other_base_weights pretraining_is_not_resumed_with_other_base_weights
        tuning_is_not_resumed_with_other_files_of_the_same_names""",
    "Weights are missing, unknown or of another shape": """
        a_faulty_language_model_is_refused_before_the_first_document tied_embeddings_are_not_missing
        an_encoder_is_no_language_model all_stored_forms_are_checked a_faulty_encoder_is_refused
        heads_for_other_tasks_are_ignored_in_an_encoder""",
    "A changed tokenizer, chat template or config is taken for the same model": """
        whatever_changes_answers_changes_the_fingerprint a_pipeline_saved_by_reference_refuses_a_changed_base
        pipelines_with_equal_weights_are_not_mixed_up_in_the_cache""",
    "Recorded progress does not match the stored results": """
        lost_results_are_computed_again result_lost_during_the_run_is_noticed
        finished_folder_with_a_lost_file_is_not_complete evaluation_with_lost_predictions_is_refused""",
    "Relations are shown in a document with another text": """
        a_sentence_as_a_document_does_not_have_the_records_of_the_whole_text
        parts_with_their_records_and_joined_documents_keep_their_own a_document_of_the_same_text_has_the_records
        records_survive records_without_an_identity_are_read records_survive_worker_processes""",
    "An invalid setting is accepted": """
        settings_of_another_type_or_out_of_range_are_refused an_empty_name_is_not_the_current_folder
        wrong_settings_of_a_component_are_refused_when_it_is_added reserved_attributes_are_refused_for_chat_models
        two_components_cannot_write_to_one_attribute saved_settings_survive_without_damage
        faulty_examples_are_refused_with_their_line binary_examples_are_refused""",
    "A folder is not read completely": """
        folders_are_read_completely_or_what_is_skipped_is_counted unreadable_folder_is_counted
        corpora_follow_links_and_skip_hidden_files reports_follow_links compressed_lines_are_split_like_others""",
    "A text becomes a control token": """
        texts_of_the_user_contain_no_control_tokens prefixes_of_ordinary_texts_are_tokenized_as_a_whole
        the_prefix_of_the_general_schema_has_the_tokens_that_the_shipped_adapter_was_tuned_with
        an_encoder_reads_no_control_tokens_in_a_text""",
    "One document or file fails others": """
        component_that_fails_for_one_document_fails_only_that_one component_that_fails_once_fails_no_document
        user_data_that_cannot_be_packed_fails_one_document error_while_reading_is_not_taken_for_one_of_the_pipeline
        documents_of_a_file_that_vanishes_fail_in_their_place_and_are_read_when_it_is_back
        a_file_that_vanishes_beside_standard_input_is_one_failed_document
        documents_added_to_a_file_during_the_run_are_not_read file_name_that_is_not_utf8_is_escaped""",
    "A worker dies": """
        killed_worker_is_replaced shard_that_kills_every_worker_is_named_and_the_others_are_kept
        error_in_a_worker_ends_the_run_and_all_workers standard_input_is_shared_by_processes
        killed_process_neither_hangs_nor_leaves_workers""",
    "Standard input is closed": """
        file_is_read_although_standard_input_is_closed closed_standard_input_is_named_if_it_is_the_input""",
    "Memory grows with the number of documents": """
        strings_are_restored_if_another_input_of_the_shard_had_them new_words_are_forgotten_after_each_shard
        memory_does_not_grow_with_new_words""",
    "A damaged file gives a traceback": """
        a_faulty_language_model_is_refused_before_the_first_document[cut_weights
        a_faulty_language_model_is_refused_before_the_first_document[junk_weights
        a_faulty_language_model_is_refused_before_the_first_document[empty_weights
        a_faulty_language_model_is_refused_before_the_first_document[a_number
        a_faulty_language_model_is_refused_before_the_first_document[no_attention
        a_faulty_language_model_is_refused_before_the_first_document[an_unknown
        a_faulty_language_model_is_refused_before_the_first_document[an_architecture
        a_faulty_language_model_is_refused_before_the_first_document[a_quantization
        a_faulty_language_model_is_refused_before_the_first_document[a_binary
        a_faulty_language_model_is_refused_before_the_first_document[a_key
        a_faulty_language_model_is_refused_before_the_first_document[a_deeply
        a_faulty_language_model_is_refused_before_the_first_document[no_tokenizer
        a_faulty_language_model_is_refused_before_the_first_document[a_junk
        a_faulty_encoder_is_refused[cut a_faulty_encoder_is_refused[a_number a_faulty_encoder_is_refused[a_junk
        a_faulty_adapter_is_refused a_model_in_a_loop_of_links_is_refused faulty_schema_files_are_refused
        damaged_pipelines_are_one_clear_error faulty_configs_of_training_are_refused
        a_config_in_a_loop_of_links_is_refused an_unknown_language_is_refused two_columns_of_one_name_are_refused""",
    "A fault is found late, or a template is endless or huge": """
        a_faulty_language_model_is_refused_before_the_first_document[a_chat
        a_faulty_language_model_is_refused_before_the_first_document[NaN
        an_encoder_with_damaged_numbers_is_refused_before_the_first_document
        faulty_and_endless_templates_are_refused_before_the_first_document
        faulty_and_endless_chat_templates_are_refused_before_the_first_document
        an_endless_chat_template_is_refused_by_local_chat_models templates_have_a_time_limit
        chat_templates_are_rendered_as_by_transformers a_context_template_must_show_the_text
        ordinary_templates_may_use_loops_macros_and_filters many_labels_are_no_endless_template""",
    "Something else than safetensors is read": """
        a_faulty_language_model_is_refused_before_the_first_document[a_pickle
        a_faulty_language_model_is_refused_before_the_first_document[another_folder
        a_faulty_language_model_is_refused_before_the_first_document[a_missing
        a_faulty_language_model_is_refused_before_the_first_document[an_index
        a_faulty_language_model_is_refused_before_the_first_document[weights_of
        a_faulty_language_model_is_refused_before_the_first_document[an_adapter
        a_faulty_encoder_is_refused[a_pickle""",
    "A key or password is shown or stored": """
        no_answer_of_a_service_brings_a_secret_to_light no_description_of_a_model_shows_a_secret
        an_unreachable_service_and_a_missing_key_do_not_show_the_url
        an_invalid_response_is_shortened_after_it_is_redacted urls_are_shown_without_secrets
        short_values_are_not_hidden_because_they_occur_by_chance
        a_run_in_which_every_request_failed_is_a_failure_and_stores_no_secret""",
    "Messages, terminals, leftovers, ignored options": """
        table_and_messages_have_no_escape_sequences checks_of_corpora_print_no_control_characters
        results_of_an_evaluation_print_no_control_characters names_and_errors_print_no_control_characters
        a_table_of_relations_shows_markup_as_it_is warnings_print_no_control_characters
        progress_still_controls_the_terminal messages_with_unprintable_characters_are_printed
        every_error_says_what_and_where shards_are_joined_in_order_whatever_their_number
        leftovers_of_killed_process_are_removed_and_replaced_output_is_restored
        options_of_pictures_of_another_type_are_refused a_revision_of_a_local_folder_is_refused
        a_revision_of_a_packaged_model_is_refused a_snapshot_of_the_hub_has_its_own_revision
        a_local_copy_of_an_adapters_base_does_not_need_its_revision""",
    "Any command with random settings, files and documents": """
        every_command_is_tried a_command_gives_a_correct_output_or_one_clear_error
        a_command_gives_a_correct_output_or_one_clear_error_in_many_trials""",
}


def main() -> None:
    """Update or check the table."""
    counts = count_trials()
    rows = [f"| {kind} | {counts[kind]} |" for kind in KINDS]
    table = "\n".join(
        ["| Kind of fault | Trials |", "| --- | ---: |", *rows, f"| **All** | **{counts.total()}** |", ""]
    )
    page = PAGE.read_text(encoding="utf-8")
    before, _, rest = page.partition(BEGIN)
    new = f"{before}{BEGIN}{table}{END}{rest.partition(END)[2]}"
    if "--check" in sys.argv[1:]:
        if new != page:
            raise SystemExit(f"The table in {PAGE} is not up to date: run python scripts/count_trials.py")
        return
    PAGE.write_text(new, encoding="utf-8")
    print(table, end="")


def count_trials() -> Counter[str]:
    """Return the number of trials of each kind, as pytest collects them."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "tests/robustness"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        raise SystemExit(listed.stdout + listed.stderr)
    kind_of = {name: kind for kind, names in KINDS.items() for name in names.split()}
    counts: Counter[str] = Counter()
    for trial in re.findall(r"^\S+\.py::test_(.+)$", listed.stdout, re.MULTILINE):
        function, bracket, parameters = trial.partition("[")
        label = f"{function}{bracket}{parameters.replace(' ', '_')}"
        found = [name for name in kind_of if name == function or ("[" in name and label.startswith(name))]
        if not found:
            raise SystemExit(f"test_{trial} belongs to no kind: add it to {Path(__file__).name}.")
        counts[kind_of[max(found, key=len)]] += 1
    return counts


if __name__ == "__main__":
    main()
