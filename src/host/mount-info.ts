// Reads the kernel's mount table, /proc/PID/mountinfo (proc(5)).

export interface MountEntry {
  /** In its mount namespace. */
  readonly id: string;
  /** MAJOR:MINOR of the file system. */
  readonly device: string;
  readonly target: string;
  readonly type: string;
  readonly source: string;
  /** Of the mount, or of the whole file system. */
  readonly isReadonly: boolean;
}

/** The kernel writes space, tab, newline and backslash as octal. */
function decode(text: string): string {
  return text.replace(/\\([0-7]{3})/g, (_all, octal: string) => String.fromCharCode(Number.parseInt(octal, 8)));
}

/** So many, empty ones where the text has no more. */
function words(text = '', count: number): readonly string[] {
  const found = text.split(' ');
  return Array.from({ length: count }, (_none, index) => found[index] ?? '');
}

export function parseMountInfo(text: string): readonly MountEntry[] {
  return text.split('\n').flatMap((line) => {
    const [left, right] = line.split(' - ');
    const [id = '', , device = '', , target = '', options = ''] = words(left, 6);
    const [type = '', source = '', own = ''] = words(right, 3);
    if (target === '' || type === '') return [];
    const isReadonly = `${options},${own}`.split(',').includes('ro');
    return { id, device, target: decode(target), type, source: decode(source), isReadonly };
  });
}
