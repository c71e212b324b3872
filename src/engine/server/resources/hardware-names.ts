// Names of vendors and products from the lists that distributions have (pci.ids, usb.ids); without them there are only numbers.
import type { SysTree } from './sys-tree.ts';

const PLACES = ['/usr/share/misc', '/usr/share/hwdata', '/var/lib/usbutils'];

export interface HardwareName {
  readonly vendor: string;
  readonly product: string;
}

/** Lists are read when the first device of their kind is looked up: they have a megabyte each. */
export class HardwareNames {
  readonly #tree: SysTree;
  readonly #lists = new Map<string, string>();

  constructor(tree: SysTree) {
    this.#tree = tree;
  }

  /** Ids as four hexadecimal digits. What is not known is empty. */
  find(list: 'pci.ids' | 'usb.ids', vendorId: string, productId: string): HardwareName {
    const text = this.#list(list);
    const start = text.indexOf(`\n${vendorId}  `);
    if (start < 0 || vendorId === '') return { vendor: '', product: '' };
    const end = endOfVendor(text, start + 1);
    const block = text.slice(start, end);
    const at = block.indexOf(`\n\t${productId}  `);
    return { vendor: lineFrom(block, 1, vendorId), product: at < 0 ? '' : lineFrom(block, at + 2, productId) };
  }

  #list(name: string): string {
    const known = this.#lists.get(name);
    if (known !== undefined) return known;
    const text = PLACES.map((place) => this.#tree.text(`${place}/${name}`)).find((found) => found !== '') ?? '';
    this.#lists.set(name, `\n${text}\n`);
    return `\n${text}\n`;
  }
}

/** Of lines that begin with a tab, or are remarks. */
function endOfVendor(text: string, start: number): number {
  let at = text.indexOf('\n', start);
  while (at >= 0 && (text[at + 1] === '\t' || text[at + 1] === '#')) at = text.indexOf('\n', at + 1);
  return at < 0 ? text.length : at + 1;
}

function lineFrom(block: string, start: number, id: string): string {
  return block.slice(start + id.length, block.indexOf('\n', start)).trim();
}
