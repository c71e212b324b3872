// npm run down: stops everything that npm run up started, by pid. --purge forgets the data too.
import { rmSync } from 'node:fs';
import { unmountBelow } from '../integration/mounts.ts';
import { tearDown } from './lab/teardown.ts';
import { defaultPaths } from './lab/settings.ts';
import { say } from './lab/progress.ts';

const paths = defaultPaths();
await tearDown(paths);
if (process.argv.includes('--purge')) {
  await unmountBelow(paths.state);
  rmSync(paths.state, { recursive: true, force: true });
}
say(
  `down; ${process.argv.includes('--purge') ? 'all data removed' : `data stays in ${paths.state} (npm run down -- --purge removes it)`}`,
);
