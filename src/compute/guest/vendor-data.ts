// What the operator tells all instances (appendix E.6).
import { readFile } from 'node:fs/promises';
import { AppError } from '#src/lib/errors.ts';
import type { MetadataConfig } from '../config/config.ts';
import type { VendorData } from './metadata/facts.ts';

/** Read anew for each instance, as Nova does. AppError 'internal' when the file that is named is not to be had. */
export async function vendorData({ vendorDataProviders, vendorDataFile }: MetadataConfig): Promise<VendorData> {
  if (!vendorDataProviders.includes('StaticJSON')) return { static: null, all: {} };
  const data = vendorDataFile === null ? {} : await readJson(vendorDataFile);
  return { static: data, all: { static: data } };
}

async function readJson(path: string): Promise<unknown> {
  try {
    return JSON.parse(await readFile(path, 'utf8'));
  } catch (cause) {
    // shown to the owner of an instance, who has no use for paths of the host
    throw new AppError('internal', 'the file of vendordata_jsonfile_path cannot be read', { cause });
  }
}
