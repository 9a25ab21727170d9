"""Declarations and their comments are read from what the TypeScript compiler writes."""

from docs._site.typescript import Comment, comments_of_constants, declarations, exported_names, parsed_comment

SOURCE = """
import { createClient } from "django-durable-agents";
/** @typedef {{a: string}} Lost */
/**
 * Opens a door.
 *
 * @param {{wide?: boolean}} [options] how; by default, as it was
 * @param {string} name
 * @returns {Door|null} the door
 */
export function open({ wide }?: {
    wide?: boolean;
}, name: string): {
    /** Shuts it. @returns {Promise<void>} */
    close: () => Promise<void>;
    name: string;
} | null;
/** A door; with `;` and `}` in its text. */
export class Door extends Thing {
    constructor(name: string);
    /** @type {"open"|"shut"} how it is */
    state: "open" | "shut";
    get isOpen(): boolean;
    #private;
}
export type Side = {
    /**
     * left or right
     */
    hand?: "left" | "right" | undefined;
};
declare class Hidden {
}
export {};
"""


def found():
    """Return the declarations of the source, by name."""
    return {one.name: one for one in declarations(SOURCE)}


def test_declarations_are_found_with_their_kinds():
    kinds = {name: (one.kind, one.is_exported) for name, one in found().items()}
    assert kinds == {
        "open": ("function", True),
        "Door": ("class", True),
        "Side": ("type", True),
        "Hidden": ("class", False),
    }


def test_a_function_is_split_into_its_signature_and_the_members_of_its_result():
    one = found()["open"]
    assert one.signature == "function open({ wide }?: {\n    wide?: boolean;\n}, name: string): { … } | null"
    assert [(member.name, member.code) for member in one.members] == [
        ("close", "close: () => Promise<void>"),
        ("name", "name: string"),
    ]
    assert one.members[0].comment.text == "Shuts it."


def test_a_comment_says_what_it_does_and_what_is_special_about_parameters():
    expected = Comment(text="Opens a door.", parameters={"options": "how; by default, as it was"}, returns="the door")
    assert found()["open"].comment == expected


def test_a_class_has_its_public_members():
    one = found()["Door"]
    assert one.signature == "class Door extends Thing"
    assert [member.name for member in one.members] == ["state", "isOpen"]
    assert one.members[0].comment.text == "how it is"
    assert one.comment.text == "A door; with `;` and `}` in its text."


def test_a_comment_that_only_defines_a_type_says_nothing_about_what_follows():
    assert parsed_comment("/** @typedef {{a: string}} Lost */") == Comment()


def test_exports_are_found_in_a_script():
    script = "export const a = 1;\nexport async function b() {}\nexport class C {}\nexport { d, e as f };\n"
    assert exported_names(script) == {"a", "b", "C", "d", "f"}


def test_comments_of_constants_are_read_from_the_script():
    script = "/** Says it. */\nexport const say = () => 1;\nexport const tell = say;\n"
    assert comments_of_constants(script) == {
        "say": Comment(text="Says it."),
        "tell": Comment(text="The same as [`say`](#say)."),
    }
