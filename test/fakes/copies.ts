// cp -a on the fake host, as far as the storage drivers use it.
import type { FakeHost } from './fake-host.ts';

export function withCopies(host: FakeHost): FakeHost {
  return host.on(/^cp -a /, async ({ argv }) => {
    await host.copyTree(argv.at(-2) ?? '', argv.at(-1) ?? '');
    return '';
  });
}
