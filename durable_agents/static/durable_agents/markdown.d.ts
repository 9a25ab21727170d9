/**
 * Shows `text` in `element`, which must contain nothing else. If the text has only grown, existing nodes are kept, so an
 * update costs only the last lines and a selection above them survives.
 *
 * @param {Element} element
 * @param {string} text
 */
export function updateMarkdown(element: Element, text: string): void;
export type AnyBlock = Pick<Block, "start" | "end" | "resume" | "remove">;
/**
 * A run of marks that may begin emphasis. `left` of its characters are unused; they stand in the output at `index`.
 */
export type Opener = {
    mark: string;
    left: number;
    index: number;
};
/** Consecutive lines that form one block, and the element that shows them. */
declare class Block {
    /** @param {{parent: Element}} flow @param {number} start its first line @param {HTMLElement} element */
    constructor({ parent }: {
        parent: Element;
    }, start: number, element: HTMLElement);
    start: number;
    /** The line after its last one. */
    end: number;
    element: HTMLElement;
    /**
     * Continues with lines that have changed from `from` on. Returns false if the block has to be parsed again.
     * @param {string[]} _lines @param {number} from @returns {boolean}
     */
    resume(_lines: string[], from: number): boolean;
    remove(): void;
}
export {};
