import type { PageSections } from "../../formats/postcopy/page-section.ts";
import type { Board } from "./board.ts";
import type { Pace } from "./pace.ts";
import type { PageLink } from "./page-link.ts";
import type { PageMap } from "./page-map.ts";
import type { SentPages } from "./sent-pages.ts";

/** What all parts of the thread that serves pages work with. */
export interface Paging {
  readonly map: PageMap;
  readonly sent: SentPages;
  readonly sections: PageSections;
  readonly link: PageLink;
  readonly board: Board;
  readonly pace: Pace;
  /** The image, not with O_DIRECT: what the page cache has is had at once. */
  readonly fd: number;
  /** To be called when pages were sent. */
  readonly noteSent: () => void;
}
