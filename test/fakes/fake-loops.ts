// losetup of a machine in memory.
import type { FakeHost } from './fake-host.ts';

export class FakeLoops {
  /** File by device. */
  readonly files = new Map<string, string>();
  readonly sizes = new Map<string, number>();
  /** Devices that somebody uses: detached when the last one goes. */
  readonly busy = new Set<string>();

  constructor(host: FakeHost) {
    host.on(/^losetup --nooverlap/, ({ argv }) => {
      const file = argv.at(-1) ?? '';
      const known = this.#of(file);
      if (known !== undefined) return `${known}\n`;
      const device = `/dev/loop${this.files.size}`;
      this.files.set(device, file);
      return `${device}\n`;
    });
    host.on(/^losetup --detach/, ({ argv }) => {
      const device = argv.at(-1) ?? '';
      if (!this.busy.has(device)) this.files.delete(device);
      return '';
    });
    host.on(/^losetup --set-capacity/, ({ argv }) => {
      const device = argv.at(-1) ?? '';
      this.sizes.set(device, Number(host.files.get(this.files.get(device) ?? '')));
      return '';
    });
    host.on(/^losetup --list/, () =>
      this.files.size === 0
        ? ''
        : JSON.stringify({ loopdevices: [...this.files].map(([name, file]) => ({ name, 'back-file': file })) }),
    );
  }

  #of(file: string): string | undefined {
    return [...this.files].find(([, other]) => other === file)?.[0];
  }
}
